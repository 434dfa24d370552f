"""Deep recursion inside a request ends in a RecursionError or in its result, and never in the server's death.

Each kind runs in a server of its own, at a depth below the limit, at the limit and far beyond it, fresh and
inside frames that are deep already; afterwards the server answers other requests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from routes import ROUTES, wait_for_parked
from wire import Client, get

KINDS = (
    ROUTES
    + r'''
import ast, copy, functools, pickle, re, types, typing
import xml.etree.ElementTree as ElementTree
from decimal import Decimal


def nested_list(n):
    nest = []
    for _ in range(n):
        nest = [nest]
    return nest

def nested_dict(n):
    nest = {}
    for _ in range(n):
        nest = {"a": nest}
    return nest

def nested_tuple(n):
    nest = (str,)
    for _ in range(n):
        nest = (nest,)
    return nest

def unnest(nest):
    # Dropping a deep structure must not recurse either; here it is dropped level by level.
    while nest:
        nest = nest.pop() if isinstance(nest, list) else nest.popitem()[1]

def pure(n):
    return 0 if n == 0 else pure(n - 1)

def sorted_key(n):
    return 0 if n == 0 else sorted([n], key=lambda _: sorted_key(n - 1))

def min_key(n):
    return 0 if n == 0 else min([n], key=lambda _: min_key(n - 1) or 0)

def mapped(n):
    return 0 if n == 0 else list(map(mapped, (n - 1,)))

def filtered(n):
    return 0 if n == 0 else list(filter(filtered, (n - 1,)))

def reduced(n):
    return 0 if n == 0 else functools.reduce(lambda _, m: reduced(m), (0, n - 1))

def repr_list(n):
    return len(repr(nested_list(n)))

def repr_dict(n):
    return len(repr(nested_dict(n)))

def equal_lists(n):
    return nested_list(n) == nested_list(n)

def equal_dicts(n):
    return nested_dict(n) == nested_dict(n)

def less_lists(n):
    return nested_list(n) < nested_list(n)

def hash_tuple(n):
    return hash(nested_tuple(n))

class Shown:
    def __init__(self, n): self.n = n
    def __repr__(self): return "" if self.n == 0 else repr(Shown(self.n - 1))
    def __str__(self): return "" if self.n == 0 else "%s" % Shown(self.n - 1)
    def __format__(self, spec): return "" if self.n == 0 else f"{Shown(self.n - 1)}"
    def __eq__(self, other): return self.n == 0 or Shown(self.n - 1) == other
    def __hash__(self): return 0 if self.n == 0 else hash(Shown(self.n - 1))
    def __len__(self): return 0 if self.n == 0 else len(Shown(self.n - 1))
    def __bool__(self): return True if self.n == 0 else bool(Shown(self.n - 1))
    def __add__(self, other): return 0 if self.n == 0 else Shown(self.n - 1) + other
    def __getitem__(self, key): return 0 if self.n == 0 else Shown(self.n - 1)[key]
    def __contains__(self, key): return True if self.n == 0 else key in Shown(self.n - 1)
    def __iter__(self): return iter(()) if self.n == 0 else iter(Shown(self.n - 1))
    def __enter__(self):
        if self.n:
            with Shown(self.n - 1): pass
    def __exit__(self, *_): pass
    def __call__(self): return 0 if self.n == 0 else Shown(self.n - 1)()
    @property
    def prop(self): return 0 if self.n == 0 else Shown(self.n - 1).prop

def by_repr(n): return repr(Shown(n))
def by_str(n): return str(Shown(n))
def by_format(n): return f"{Shown(n)}"
def by_eq(n): return Shown(n) == 1
def by_hash(n): return hash(Shown(n))
def by_len(n): return len(Shown(n))
def by_bool(n): return bool(Shown(n))
def by_add(n): return Shown(n) + 1
def by_item(n): return Shown(n)[0]
def by_contains(n): return 1 in Shown(n)
def by_iter(n): return list(Shown(n))
def by_with(n):
    with Shown(n): pass
def by_call(n): return Shown(n)()
def by_property(n): return Shown(n).prop

class Attributes:
    def __getattr__(self, name):
        n = int(name[1:])
        return 0 if n == 0 else getattr(self, f"a{n - 1}")
    def __setattr__(self, name, value):
        n = int(name[1:])
        if n:
            setattr(self, f"a{n - 1}", value)

def by_getattr(n): return getattr(Attributes(), f"a{n}")
def by_setattr(n): setattr(Attributes(), f"a{n}", 1)

class Descriptor:
    def __get__(self, instance, owner):
        if instance is None or instance.n == 0: return 0
        return Described(instance.n - 1).value

class Described:
    value = Descriptor()
    def __init__(self, n): self.n = n

def by_descriptor(n): return Described(n).value

class Made:
    def __init__(self, n): self.inner = None if n == 0 else Made(n - 1)
def by_init(n): Made(n)

class New:
    def __new__(cls, n): return None if n == 0 else cls(n - 1)
def by_new(n): New(n)

class Meta(type):
    def __call__(cls, n): return 0 if n == 0 else cls(n - 1)
class OfMeta(metaclass=Meta): pass
def by_metaclass(n): return OfMeta(n)

class Checked(type):
    def __instancecheck__(cls, n): return True if n == 0 else isinstance(n - 1, cls)
    def __subclasscheck__(cls, other): return issubclass(other, cls)
class OfChecked(metaclass=Checked): pass
def by_instancecheck(n): return isinstance(n, OfChecked)
def by_subclasscheck(n): return issubclass(int, OfChecked) if n > 100 else 0

class Finalized:
    def __init__(self, n): self.n = n
    def __del__(self):
        if self.n: Finalized(self.n - 1)
def by_del(n):
    Finalized(min(n, 200))

def by_partial(n): return 0 if n == 0 else functools.partial(by_partial, n - 1)()

@functools.lru_cache(None)
def cached(n): return 0 if n == 0 else cached(n - 1)
def by_cache(n):
    cached.cache_clear()
    return cached(n)

@functools.singledispatch
def dispatched(n): return 0 if n == 0 else dispatched(n - 1)

def by_generator(n):
    def down(n):
        if n: yield from down(n - 1)
        else: yield 1
    return next(down(n))

def by_expression(n): return 0 if n == 0 else sum(by_expression(n - 1) for _ in (1,))
def by_comprehension(n): return 0 if n == 0 else [by_comprehension(n - 1) for _ in (1,)][0]

def by_coroutine(n):
    async def down(n): return 0 if n == 0 else await down(n - 1)
    coroutine = down(n)
    try: coroutine.send(None)
    except StopIteration: return 0
    finally: coroutine.close()

def by_exec(n):
    if n: exec("by_exec(n - 1)", {"by_exec": by_exec, "n": n})
def by_eval(n): return 0 if n == 0 else eval("by_eval(n - 1)", {"by_eval": by_eval, "n": n})

def by_isinstance(n): return isinstance(1, nested_tuple(n))
def by_issubclass(n): return issubclass(int, nested_tuple(n))
def by_union(n): return isinstance(1, functools.reduce(lambda one, _: one | str, range(n), int | bytes))

def json_dumps(n): return json.dumps(nested_list(n))
def json_dumps_dict(n): return json.dumps(nested_dict(n))
def json_dumps_indented(n): return json.dumps(nested_dict(n), indent=1)
def json_loads(n): return unnest(json.loads("[" * n + "]" * n))
def json_loads_dict(n): return unnest(json.loads('{"a":' * n + "{}" + "}" * n))
def pickle_dumps(n): return pickle.dumps(nested_list(n))
def pickle_loads(n): return unnest(pickle.loads(b"(l" * n + b"a" * (n - 1) + b"."))
def deep_copy(n): return unnest(copy.deepcopy(nested_list(n)))
def list_drop(n): nested_list(n * 10)
def dict_drop(n): nested_dict(n * 10)
def tuple_drop(n): nested_tuple(n * 10)

class Linked:
    def __init__(self, rest): self.rest = rest
def object_drop(n): functools.reduce(lambda rest, _: Linked(rest), range(n * 10), None)
def generator_drop(n): functools.reduce(lambda rest, _: (0 for _ in rest), range(n), ())
def exception_drop(n):
    def chained(rest, _):
        error = ValueError()
        error.__context__ = rest
        return error
    functools.reduce(chained, range(n * 10), None)
def traceback_drop(n):
    try: pure(10 ** 6)
    except RecursionError as error: return len(str(error))

def literal(text): return unnest_any(ast.literal_eval(text))
def unnest_any(nest):
    return unnest(nest) if isinstance(nest, list) else None
def literal_list(n): return literal("[" * n + "]" * n)
def literal_tuple(n): return literal("(" * n + ")" * n)
def literal_dict(n): return literal("{1:" * n + "1" + "}" * n)
def literal_unary(n):
    # More than one sign is no literal, which is found out after the whole text was parsed.
    try: return literal("-" * n + "1")
    except ValueError: return None
def compiled(text, mode="eval", flags=0): return compile(text, "text", mode, flags) and 0
def compile_list(n): return compiled("[" * n + "]" * n)
def compile_call(n): return compiled("f(" * n + ")" * n)
def compile_not(n): return compiled("not " * n + "1")
def compile_minus(n): return compiled("-" * n + "1")
def compile_sum(n): return compiled("a" + "+a" * n)
def compile_power(n): return compiled("a" + "**a" * n)
def compile_attribute(n): return compiled("a" + ".b" * n)
def compile_subscript(n): return compiled("a" + "[0]" * n)
def compile_lambda(n): return compiled("lambda:" * n + "1")
def compile_ternary(n): return compiled("1 if a else " * n + "1")
def compile_star(n): return compiled("[" + "*[" * n + "]" * n + "]")
def compile_elif(n): return compiled("if a: pass\n" + "elif a: pass\n" * n, "exec")
def compile_blocks(n):
    n = min(n, 200)  # the text grows with the square, and the tokenizer has had enough at 100
    return compiled("".join(" " * i + "if a:\n" for i in range(n)) + " " * n + "pass", "exec")
def compile_match(n): return compiled("match a:\n case " + "[" * n + "]" * n + ": pass", "exec")
def parse_sum(n): return compiled("a" + "+a" * n, flags=ast.PyCF_ONLY_AST)
def parse_attribute(n): return compiled("a" + ".b" * n, flags=ast.PyCF_ONLY_AST)
def ast_dump(n): return len(ast.dump(ast.parse("-" * min(n, 150) + "1")))
def ast_compile(n):
    node = ast.Constant(1)
    for _ in range(n):
        node = ast.UnaryOp(ast.USub(), node)
    return compiled(located(ast.Expression(node)))

def located(tree):
    node = tree.body
    while True:
        node.lineno = node.end_lineno = 1
        node.col_offset = node.end_col_offset = 0
        if isinstance(node, ast.Constant): return tree
        node = node.operand

def re_groups(n): re.purge(); return re.compile("(?:" * n + "a" + ")" * n) and 0
def re_captures(n): re.purge(); return re.compile("(" * n + "a" + ")" * n) and 0
def re_match(n): return re.match("(?:a|b)*c", "ab" * n * 100) and 0
def re_nested(n): return re.match("(?:(?:a+)+b)?", "a" * min(n, 15)) and 0
def xml_parse(n): return drop_tree(ElementTree.fromstring("<a>" * n + "</a>" * n))
def xml_write(n):
    tree = ElementTree.fromstring("<a>" * n + "</a>" * n)
    try: return len(ElementTree.tostring(tree))
    finally: drop_tree(tree)
def drop_tree(tree):
    while len(tree):
        tree[:] = tree[0][:]
def xml_drop(n): ElementTree.fromstring("<a>" * n + "</a>" * n)
def import_module(n): return __import__("importlib").import_module("json" if n else "re") and 0
def decimal_text(n): return len(str(Decimal("1" * n * 10)))
def warn(n):
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return 0 if n == 0 else (warnings.warn("deep"), warn(n - 1))
def log(n):
    import logging
    class Handler(logging.Handler):
        def emit(self, record):
            left = record.args[0]
            if left: logger.error("%d", left - 1)
    logger = logging.getLogger("deep")
    logger.propagate = False
    logger.handlers = [Handler()]
    logger.error("%d", n)

def sqlite(n):
    import sqlite3
    database = sqlite3.connect(":memory:")
    database.create_function("deeper", 1, lambda left: 0 if left == 0 else
        database.execute("select deeper(?)", (left - 1,)).fetchone()[0])
    try: return database.execute("select deeper(?)", (n,)).fetchone()[0]
    except sqlite3.OperationalError: return "refused"
    finally: database.close()

def callbacks(n):
    import ctypes
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    @kind
    def down(left):
        if left:
            try: down(left - 1)
            except RecursionError: pass
    # An exception inside a callback is printed, not raised; the server's log is read for tracebacks.
    down(min(n, 40))

def trace(n):
    def tracer(frame, event, arg): return tracer
    sys.settrace(tracer)
    try: return pure(n)
    finally: sys.settrace(None)

def suspends(n):
    # Down, away to the loop at the bottom, and back up.
    c = environ_of_now[CONTINUATION_KEY]
    def down(n):
        if n: return down(n - 1)
        try: c.suspend(1e-6)
        except server.timeout: return 0
    return down(n)


environ_of_now = {}

def inside(levels, function, n):
    return function(n) if levels == 0 else inside(levels - 1, function, n)

def do_run(c, environ, kind, n, levels):
    environ_of_now.update(environ)
    function = globals()[kind]
    try:
        inside(int(levels), function, int(n))
    except RecursionError:
        return "RecursionError"
    except MemoryError:
        return "MemoryError"  # the limit of the parser
    except SyntaxError:
        return "SyntaxError"  # the limit of the tokenizer
    return "result"
'''
)

ALL = """
pure sorted_key min_key mapped filtered reduced repr_list repr_dict equal_lists equal_dicts less_lists hash_tuple
by_repr by_str by_format by_eq by_hash by_len by_bool by_add by_item by_contains by_iter by_with by_call by_property
by_getattr by_setattr by_descriptor by_init by_new by_metaclass by_instancecheck by_subclasscheck by_del by_partial
by_cache dispatched by_generator by_expression by_comprehension by_coroutine by_exec by_eval by_isinstance
by_issubclass by_union json_dumps json_dumps_dict json_dumps_indented json_loads json_loads_dict pickle_dumps
pickle_loads deep_copy list_drop dict_drop tuple_drop object_drop generator_drop exception_drop traceback_drop
literal_list literal_tuple literal_unary literal_dict compile_list compile_call compile_not
compile_minus compile_sum compile_power compile_attribute compile_subscript compile_lambda compile_ternary
compile_star compile_elif compile_blocks compile_match parse_sum parse_attribute
ast_dump ast_compile re_groups re_captures re_match re_nested xml_parse xml_write xml_drop import_module decimal_text
warn log sqlite callbacks trace suspends
""".split()

DEPTHS = [50, 900, 1_100, 3_000, 5_500, 20_000, 100_000]
# CPython recurses here without counting, as far as the stack goes: on any thread, so here too. A debug build's
# frames are larger.
UNCOUNTED = dict.fromkeys(("hash_tuple", "generator_drop"), 1_100 if hasattr(sys, "gettotalrefcount") else 5_500)
OUTCOMES = {"result", "RecursionError", "MemoryError", "SyntaxError"}

# Where every kind gets its result.
SHALLOW = 50


@pytest.mark.parametrize("kind", ALL)
def test_deep_recursion_never_ends_the_server(serve: Callable, kind: str) -> None:
    server = serve(KINDS)
    with Client(server.port, seconds=40) as client:
        seen = []
        for levels in (0, 400):
            for depth in (depth for depth in DEPTHS if depth <= UNCOUNTED.get(kind, depth)):
                try:
                    response = client.get("/run", kind=kind, n=depth, levels=levels)
                except EOFError:
                    raise AssertionError(f"dead at {depth} below {levels} after {seen}") from None
                assert response.status == 200, (depth, levels, server.output())
                assert response.text in OUTCOMES
                if depth == SHALLOW:
                    assert response.text == "result", (depth, levels)
                seen.append((levels, depth, response.text))
    print(kind, [outcome for _, _, outcome in seen])
    assert get(server.port, "/run", kind="pure", n=50, levels=0).text == "result"


def test_recursion_without_an_end_is_a_500(serve: Callable) -> None:
    server = serve(
        """
        def endless():
            endless()

        def app(environ, start_response):
            endless()
        """
    )
    server.expects_traceback = True
    for _ in range(20):
        assert server.get()[0] == 500
    assert server.output().count("RecursionError: maximum recursion depth exceeded") == 20


def test_requests_parked_deep_recurse_no_less_deep_together(serve: Callable) -> None:
    server = serve(
        KINDS
        + """
def do_deep(c, environ, name):
    def down(n):
        return down(n - 1) if n else park(c, name)
    return down(900)
"""
    )
    clients = [Client(server.port).send("/deep", name=name) for name in range(50)]
    wait_for_parked(server.port, 50)
    assert get(server.port, "/run", kind="pure", n=900, levels=0).text == "result"
    assert get(server.port, "/run", kind="pure", n=1100, levels=0).text == "RecursionError"
    get(server.port, "/wake_all")
    for number, client in enumerate(clients):
        assert client.response().text == str(number)
        client.finish()
