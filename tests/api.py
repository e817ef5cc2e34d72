"""The public API as text, read from the source: what users can name, and how they can call it.

`nox -s api` writes it to api.txt beside this file; the diff is the change that users will see.
"""

from __future__ import annotations

import ast
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import griffe

STORED = Path(__file__).with_name("api.txt")
WIDTH = 100

# What Python, attrs and pydantic call, and no user does.
NOT_CALLED = {name for name in dir(object) if name != "__init__"} | {
    "__attrs_init_subclass__",
    "__attrs_post_init__",
    "__del__",
    "__get_pydantic_core_schema__",
    "__getattr__",
    "__replace__",
    "__setstate__",
    "__slots__",
}


def public_api(folder: Path) -> str:
    """Describe every public name of the package in a folder."""
    package = griffe.load(
        "chatkit_async", search_paths=[folder], try_relative_path=False, allow_inspection=False
    )
    return "\n".join(Description(package).lines()) + "\n"


class Description:
    """The text, made once.

    Attributes:
        public: Under each module the names that it offers, and those before it do not.
        named: Type aliases that annotations name, whether or not a module offers them.
    """

    def __init__(self, package):
        modules = (m for name, m in sorted(package.modules.items()) if not name.startswith("_"))
        seen = set()
        self.package = package
        self.named = {}
        self.public = {}
        for module in [package, *modules]:
            offered = {name: final(module[name]) for name in sorted(module.exports or [])}
            self.public[module.path] = {
                name: thing for name, thing in offered.items() if thing.path not in seen
            }
            seen |= {thing.path for thing in offered.values()}
        self.exported = seen

    def lines(self):
        for module, things in self.public.items():
            if things:
                yield f"# {module}"
            for name, thing in things.items():
                yield from ["", *self.describe(thing, name)]
            if things:
                yield ""
        yield "# named in annotations"
        done = set()
        while rest := self.named.keys() - done - self.exported:
            for path in sorted(rest):
                yield from ["", *self.of_attribute(self.named[path], path)]
            done |= rest

    def describe(self, thing, name):
        if thing.is_class:
            return self.of_class(thing, name)
        if thing.is_function:
            return self.of_function(thing, name)
        return self.of_attribute(thing, name)

    def of_class(self, cls, name):
        keywords = [f"{key}={value}" for key, value in cls.keywords.items()]
        between = ", ".join([*self.public_bases(cls), *keywords])
        lines = [*decorators(cls), f"class {name}({between})" if between else f"class {name}"]
        for member_name, member in self.public_members(cls).items():
            lines += ["    " + line for line in self.describe(member, member_name)]
        return lines + [f"    {line}" for line in attributes_set_later(cls)]

    def public_bases(self, cls):
        """The bases, and in the place of one that nobody can name, its own."""
        ours = {base.name: base for base in cls.resolved_bases}
        for base in cls.bases:
            private = ours.get(str(base).split("[", maxsplit=1)[0])
            if private is None or private.path in self.exported:
                yield str(base)
            else:
                yield from self.public_bases(private)

    def public_members(self, cls):
        """The class's own members, and those of bases that nobody can name."""
        members = {}
        for base in reversed(cls.mro()):
            if base.path not in self.exported:
                members.update(base.members)
        members.update(cls.members)
        return {
            name: final(member)
            for name, member in members.items()
            if name not in NOT_CALLED and (member.is_special or not name.startswith("_"))
        }

    def of_function(self, function, name):
        lines = []
        for each in [*(function.overloads or []), function]:
            head = ("async " if "async" in each.labels else "") + f"def {name}"
            parameters = list(self.of_parameters(each))
            tail = self.annotation(" -> ", each.returns)
            line = f"{head}({', '.join(parameters)}){tail}"
            lines += decorators(each)
            if len(line) <= WIDTH:
                lines.append(line)
            else:  # one to a line: a diff then shows what changed
                lines += [f"{head}(", *(f"    {each}," for each in parameters), f"){tail}"]
        return lines

    def of_parameters(self, function):
        kinds = griffe.ParameterKind
        stars = {kinds.var_positional: "*", kinds.var_keyword: "**"}
        before = None
        for parameter in function.parameters:
            if before is kinds.positional_only is not parameter.kind:
                yield "/"
            if parameter.kind is kinds.keyword_only and before not in {
                kinds.keyword_only,
                kinds.var_positional,
            }:
                yield "*"
            before = parameter.kind
            text = stars.get(before, "") + parameter.name
            text += self.annotation(": ", parameter.annotation)
            if parameter.default is not None and before not in stars:
                text += f" = {self.value(parameter.default)}"
            yield text
        if before is kinds.positional_only:
            yield "/"

    def of_attribute(self, attribute, name):
        text = name + self.annotation(": ", attribute.annotation)
        if "property" in attribute.labels:
            return [f"{text}  # property"]
        own = attribute.parent.is_module or "class-attribute" in attribute.labels
        # The version changes with every release.
        if own and attribute.value is not None and name != "__version__":
            value = self.value(attribute.value)
            text += "" if value is None else f" = {value}"
        if str(attribute.annotation) == "TypeAlias":
            self.annotation("", attribute.value)
        return [text]

    def annotation(self, before, expression):
        if expression is None:
            return ""
        for thing in self.ours(expression):
            if thing.is_attribute and thing.parent.is_module:
                self.named[thing.path] = thing
        return f"{before}{expression}"

    def value(self, expression):
        """The value, and for a constant of the package what it stands for."""
        if isinstance(expression, griffe.ExprName):
            for thing in self.ours(expression):
                if thing.is_attribute and thing.parent.is_module:
                    return thing.value
        if isinstance(expression, griffe.ExprCall) and expression.canonical_name == "field":
            # What else an attrs field is told is between the class and attrs.
            kept = [
                str(each)
                for each in expression.arguments
                if getattr(each, "name", None) in {"alias", "default", "factory", "init", "kw_only"}
            ]
            return f"field({', '.join(kept)})" if kept else None
        return expression

    def ours(self, expression):
        """What of the package an expression names."""
        names = expression.iterate() if isinstance(expression, griffe.Expr) else []
        for each in names:
            if isinstance(each, griffe.ExprName) and each.canonical_path.startswith(
                f"{self.package.name}."
            ):
                with suppress(KeyError):  # a name within a function
                    yield final(self.package[each.canonical_path.split(".", maxsplit=1)[1]])


def final(thing):
    return thing.final_target if thing.is_alias else thing


def attributes_set_later(cls):
    """Those that `__init__` leaves to another method, which griffe does not look into."""
    for node in ast.walk(ast.parse(dedent(cls.source))):
        match node:
            case ast.AnnAssign(
                target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation
            ) if not name.startswith("_") and name not in cls.members:
                yield f"{name}: {ast.unparse(annotation)}"


def decorators(thing):
    return [f"@{decorator.value}" for decorator in thing.decorators]


if __name__ == "__main__":
    STORED.write_text(public_api(Path(sys.argv[1])), encoding="utf-8")
