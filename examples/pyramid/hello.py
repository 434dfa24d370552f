"""A Pyramid application of one page, to be served by `pserve site.ini`.

    cd examples/pyramid
    PYTHONPATH=. pserve site.ini
"""

from pyramid.config import Configurator
from pyramid.response import Response


def hello(request):
    """Greet whoever asks."""
    return Response(f"Hello, {request.matchdict['name']}!\n", content_type="text/plain")


def main(global_config, **settings):
    """Make the application; site.ini names this function."""
    with Configurator(settings=settings) as config:
        config.add_route("hello", "/hello/{name}")
        config.add_view(hello, route_name="hello")
        return config.make_wsgi_app()
