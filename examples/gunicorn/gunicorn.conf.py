"""Settings for gunicorn: the worker of meinheld, and what the server itself is to be told."""

bind = "127.0.0.1:8000"
workers = 1
worker_class = "egg:meinheld#gunicorn_worker"
# A worker that has answered so many requests makes way for a fresh one; none of them fails.
max_requests = 10_000
max_requests_jitter = 1_000


def post_worker_init(worker):
    """Set what gunicorn has no setting for."""
    from meinheld import server

    server.set_max_content_length(100 * 1024 * 1024)
