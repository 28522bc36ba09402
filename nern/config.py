"""Reads an experiment from YAML and dotted overrides into attrs classes; every mistake is named with its path."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import attrs
import cattrs
import yaml
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from nern.errors import ConfigError, PluginError
from nern.interfaces import Architecture, Embedding, Loss, Observer, Optimizer, Predictor, Sampler, Smoother, Task
from nern.options import OptionError, above, at_least, at_most, below, option, type_name
from nern.registry import KINDS, Registry, create_registry


@attrs.frozen
class LossTerm:
    """A loss and its part in the objective: weight · loss (Ashkenazi et al. 2023, eq. 2)."""

    loss: Loss
    weight: float = option(1.0, help="factor of the term in the objective (the paper's α and β)", check=at_least(0))
    warmup: int = option(0, help="steps at the start of the phase during which the term is off", check=at_least(0))


@attrs.frozen
class Phase:
    """A part of training with its own length, losses, optimiser, sampler and inputs."""

    iterations: int = option(help="steps", check=at_least(1))
    name: str = option("joint", help="what metrics and messages call the phase")
    batch: int = option(256, help="images a step, where a loss needs the networks", check=at_least(1))
    losses: dict[str, LossTerm] | None = option(None, help="losses of this phase instead of the top-level ones")
    sampler: Sampler | None = option(None, help="sampler of this phase instead of the top-level one")
    optimizer: Optimizer | None = option(None, help="optimiser of this phase instead of the top-level one")
    inputs: Task | None = option(None, help="source of training inputs instead of the task's training set")
    clip: float | None = option(None, help="largest norm of the gradient; larger ones are scaled down", check=above(0))
    average: float = option(0.0, help="decay of an exponential moving average of the predictor that is used at the end; 0 for none", check=[at_least(0), below(1)])


@attrs.frozen
class Pretrain:
    """How to train the original network where no weights are given: SGD with momentum and a cosine schedule."""

    epochs: int = option(20, help="passes over the training set", check=at_least(1))
    batch: int = option(128, help="images a step", check=at_least(1))
    lr: float = option(0.1, help="learning rate at the start", check=above(0))
    momentum: float = option(0.9, help="momentum", check=[at_least(0), below(1)])
    weight_decay: float = option(5e-4, help="ℓ2 penalty on every parameter", check=at_least(0))
    smoothness: float = option(0.0, help="factor of the smoothness term (Ashkenazi et al. 2023, eq. 6)", check=at_least(0))


@attrs.frozen
class Experiment:
    """Everything a run is made of."""

    architecture: Architecture = option(help="the original network")
    task: Task = option(help="where images come from")
    phases: list[Phase] = option(help="parts of training, in order")
    embedding: Embedding = option(help="coordinates to vectors")
    predictor: Predictor = option(help="vectors to kernels")
    sampler: Sampler = option(help="which kernels carry gradient in a step")
    smoother: Smoother = option(help="order of the kernels")
    losses: dict[str, LossTerm] = option(help="terms of the objective")
    optimizer: Optimizer = option(help="optimiser of the predictor")
    observers: dict[str, Observer] = option(help="what watches the run")
    pretrain: Pretrain | None = option(None, help="trains the original network where architecture.weights is null")
    heldout: float = option(0.1, help="fraction of the training set kept for choosing among checkpoints", check=[at_least(0), below(1)])
    evaluate_every: int = option(500, help="steps between evaluations on the held-out images, 0 for the end of each phase only", check=at_least(0))
    checkpoint_every: int = option(500, help="steps between checkpoints, 0 for the end of each phase only", check=at_least(0))
    log_every: int = option(50, help="steps between reports of the losses", check=at_least(1))
    precision: Literal["float32", "bfloat16", "auto"] = option("auto", help="arithmetic of the networks and the predictor; auto takes bfloat16 where the processor computes in it")
    seed: int = option(0, help="source of everything random", check=[at_least(0), at_most(2**31 - 1)])
    device: str = option("auto", help='"cpu", "cuda", "cuda:1", …; auto takes a GPU where there is one')
    threads: int | None = option(None, help="CPU threads; null leaves torch's choice", check=at_least(1))
    output: str = option("runs/{name}", help="run directory; {name} stands for the preset's or file's name")
    plugins: list[str] = option(factory=list, help="local plugins: Python files, relative to this file, or module names")

    def __attrs_post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases must hold at least one phase")


#: What a configuration that leaves a section out gets: the paper's choices.
DEFAULTS: dict[str, Any] = {
    "embedding": {"name": "positional"},
    "predictor": {"name": "mlp"},
    "sampler": {"name": "magnitude"},
    "smoother": {"name": "cross-filter"},
    "losses": {"reconstruction": {}, "kd": {"weight": 1e-4}, "fmd": {"weight": 1e-4}},
    "optimizer": {"name": "ranger"},
    "observers": {"progress": {}},
}
_INTERFACES = {interface: kind for kind, (_, interface) in KINDS.items()}
_MAPS = {"losses": "loss", "observers": "observer"}  # sections that hold components by name


# -- from files to nested dictionaries -------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads 1e-4 as a number (as YAML 1.2 does) and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            value = self.construct_object(key, deep=True)  # type: ignore[no-untyped-call]
            if value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{value}' stands twice", key.start_mark)
            seen.add(value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(text: str, source: str) -> Any:
    """Parse YAML safely.

    Raises:
        ConfigError: the text is not YAML; names `source`, line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (derived from SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError(f"{place}: {getattr(error, 'problem', None) or error}") from error


def presets() -> dict[str, str]:
    """Shipped experiments: name → YAML text, sorted by name."""
    files = [file for file in resources.files("nern").joinpath("presets").iterdir() if file.name.endswith(".yaml")]
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)}


def no_such_preset(name: str) -> str:
    """What to tell a user who asked for a preset that does not exist."""
    near = difflib.get_close_matches(name, presets(), n=1)
    hint = f", did you mean '{near[0]}'?" if near else f" (presets: {', '.join(presets())})"
    return f"there is no preset and no YAML file called '{name}'{hint}"


@attrs.frozen
class Source:
    """A configuration before it is checked."""

    name: str
    place: str  # what messages call it
    folder: Path | None  # local plugins are relative to it
    values: dict[str, Any]


def read_source(reference: str | Path) -> Source:
    """A YAML file, or the preset of that name.

    Raises:
        ConfigError: there is neither, or it does not hold a mapping.
    """
    path = Path(reference)
    shipped = presets()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the configuration {path}: {getattr(error, 'strerror', None) or error}") from error
        name, folder = path.stem, path.resolve().parent
    elif str(reference) in shipped:
        text, name, folder = shipped[str(reference)], str(reference), None
    else:
        raise ConfigError(no_such_preset(str(reference)))
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: an experiment is a mapping of keys such as 'architecture' and 'task', got {_kind(values)}")
    return Source(name, str(reference), folder, values)


def parse_override(text: str) -> tuple[str, Any]:
    """`key.sub=value` → path and value; the value is read as YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"override '{text}' must look like key.sub=value")
    return path.strip(), read_yaml(value, f"override {path}")


def apply_overrides(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `values` with every dotted path set; a list is entered by position (`phases.0.iterations`).

    Giving a component another `name` drops the options that belonged to the old one, unless they are overridden too.
    """
    values = _copy(values)
    for path in sorted(overrides, key=lambda path: not path.endswith(".name") and overrides[path] is not None):
        _set(values, path, overrides[path])
    return values


def _set(values: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        if isinstance(values, dict):
            if isinstance(values.get(key), str) and key in KINDS:  # `predictor: mlp` is short for {name: mlp}
                values[key] = {"name": values[key]}
            if values.get(key) is None:
                values[key] = _copy(DEFAULTS.get(key, {})) if depth == 0 else {}
            values = values[key]
        elif isinstance(values, list):
            values = values[_position(values, key, path)]
        else:
            raise ConfigError(f"{path}: '{'.'.join(parents[:depth])}' is {_kind(values)} and has no '{key}'")
    if isinstance(values, list):
        values[_position(values, last, path)] = value
    elif isinstance(values, dict):
        if last == "name" and value != values.get("name") and parents and parents[-1] in KINDS:
            kept = {"weights"} if parents[-1] == "architecture" else {"root"} if parents[-1] == "task" else set()
            for key in set(values) - kept:
                del values[key]
        values[last] = value
    else:
        raise ConfigError(f"{path}: '{'.'.join(parents)}' is {_kind(values)} and has no '{last}'")


def _position(values: list[Any], key: str, path: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in values]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(values):
        return int(key)
    known = ", ".join([f"0 to {len(values) - 1}", *filter(None, names)])
    raise ConfigError(f"{path}: the list has no entry '{key}' (there are: {known})")


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


# -- from nested dictionaries to an Experiment -----------------------------------------------------------------------


def load_experiment(
    reference: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), registry: Registry | None = None, disabled: Sequence[str] = ()
) -> tuple[Experiment, Registry]:
    """Read, override and check an experiment.

    Args:
        reference: a YAML file or the name of a preset.
        overrides: dotted paths to values, or strings `key.sub=value`.
        registry: where components come from; by default built-ins, installed plugins and those the file names.
        disabled: installed plugins to leave out.

    Raises:
        ConfigError: one line for every mistake, with its path.
    """
    source = read_source(reference)
    if not isinstance(overrides, Mapping):
        overrides = dict(parse_override(text) for text in overrides)
    values = apply_overrides(source.values, overrides)
    plugins = values.get("plugins") or []
    if registry is None:
        local = [plugin for plugin in plugins if isinstance(plugin, str)] if isinstance(plugins, list) else []
        registry = create_registry(local, folder=source.folder, disabled=disabled)
    if isinstance(values.get("output", "runs/{name}"), str):
        values["output"] = values.get("output", "runs/{name}").replace("{name}", source.name)
    if source.folder and isinstance(plugins, list):
        values["plugins"] = [str(source.folder / p) if isinstance(p, str) and p.endswith(".py") else p for p in plugins]
    return structure(values, registry, source.place), registry


def structure(values: Mapping[str, Any], registry: Registry, place: str = "config") -> Experiment:
    """Nested dictionaries → Experiment.

    Raises:
        ConfigError: one line for every mistake, with its path.
    """
    complete = {**_copy(DEFAULTS), **{key: value for key, value in values.items() if value is not None or key not in DEFAULTS}}
    try:
        return _converter(registry).structure(complete, Experiment)
    except (ClassValidationError, IterableValidationError) as error:
        problems = list(_problems(error, ""))
    except ValueError as error:
        problems = [str(error)]
    raise ConfigError("\n".join(f"{place}: {problem}" for problem in problems))


def structure_component(kind: str, values: Mapping[str, Any], registry: Registry, place: str) -> Any:
    """One section, such as `{name: mlp, hidden: 160}`, to its component."""
    try:
        return _converter(registry).structure(values, KINDS[kind][1])
    except (ClassValidationError, IterableValidationError) as error:
        raise ConfigError("\n".join(f"{place}: {problem}" for problem in _problems(error, ""))) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{place}: {error}") from error


def unstructure(value: Any, registry: Registry) -> Any:
    """An Experiment or component as nested dictionaries, every default written out."""
    if isinstance(value, LossTerm):
        return {**_named(value.loss, registry), "weight": value.weight, "warmup": value.warmup}
    if isinstance(value, tuple(_INTERFACES)):
        return _named(value, registry)
    if attrs.has(type(value)):
        return {field.name: unstructure(getattr(value, field.name), registry) for field in attrs.fields(type(value))}
    if isinstance(value, dict):
        return {key: unstructure(item, registry) for key, item in value.items()}
    return [unstructure(item, registry) for item in value] if isinstance(value, (list, tuple)) else value


def _named(component: Any, registry: Registry) -> dict[str, Any]:
    options = {field.name: unstructure(getattr(component, field.name), registry) for field in attrs.fields(type(component))}
    return {"name": registry.name_of(component), **options}


def to_yaml(experiment: Experiment, registry: Registry) -> str:
    """The resolved configuration, as a file that gives the same experiment."""
    return yaml.safe_dump(unstructure(experiment, registry), sort_keys=False, allow_unicode=True, width=100)


def _converter(registry: Registry) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for primitive in (int, float, bool, str):
        converter.register_structure_hook(primitive, _primitive)
    converter.register_structure_hook_func(_is_optional, lambda value, hint: _optional(converter, value, hint))
    converter.register_structure_hook_func(lambda hint: typing.get_origin(hint) is list or hint is list, lambda value, hint: _list(converter, value, hint))
    converter.register_structure_hook_func(lambda hint: typing.get_origin(hint) is tuple, lambda value, hint: tuple(_list(converter, value, hint)))
    converter.register_structure_hook_func(lambda hint: typing.get_origin(hint) is Literal, _literal)
    for interface, kind in _INTERFACES.items():
        converter.register_structure_hook_func(
            lambda hint, interface=interface: hint is interface,
            lambda value, _, kind=kind: _component(converter, registry, kind, value),
        )
    for section, kind in ((dict[str, LossTerm], "loss"), (dict[str, Observer], "observer")):
        converter.register_structure_hook_func(
            lambda hint, section=section: hint == section, lambda value, _, kind=kind: _by_name(converter, registry, kind, value)
        )
    for section in (Phase, Pretrain, Experiment):
        make = cattrs.gen.make_dict_structure_fn(section, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True)
        converter.register_structure_hook(section, lambda value, hint, make=make: _checked(make, _mapping(value), hint))
    return converter


def _component(converter: cattrs.Converter, registry: Registry, kind: str, value: Any) -> Any:
    if isinstance(value, str):
        value = {"name": value}
    options = dict(_mapping(value, f"a {kind}'s name, or a mapping with 'name'"))
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"needs a 'name' (one of: {', '.join(registry.names(kind))})")
    cls = registry.find(kind, name).cls
    make = cattrs.gen.make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True)
    return _checked(make, options, cls)


def _checked(make: Callable[[Any, type], Any], values: Mapping[str, Any], cls: type) -> Any:
    """Structure first, validate every field then, so that all impossible values are reported together."""
    with attrs.validators.disabled():
        built = make(values, cls)
    errors: list[Exception] = []
    for field in attrs.fields(cls):
        try:
            if field.validator:
                field.validator(built, field, getattr(built, field.name))
        except Exception as error:
            errors.append(error)
    if errors:
        raise ClassValidationError("", errors, cls)
    return built


def _by_name(converter: cattrs.Converter, registry: Registry, kind: str, value: Any) -> dict[str, Any]:
    """`{kd: {weight: 1}}`: components by their own name, or by a label with `name` inside; null switches one off."""
    built, errors = {}, []
    for label, options in _mapping(value).items():
        if options is None:
            continue
        try:
            options = {"name": label, **_mapping(options)}
            if kind == "loss":
                term = {key: options.pop(key) for key in ("weight", "warmup") if key in options}
                built[label] = LossTerm(loss=_component(converter, registry, kind, options), **_term(converter, term))
            else:
                built[label] = _component(converter, registry, kind, options)
        except Exception as error:
            error.__notes__ = [cattrs.errors.IterableValidationNote("", label, None)]
            errors.append(error)
    if errors:
        raise IterableValidationError("", errors, dict)
    return built


def _term(converter: cattrs.Converter, values: dict[str, Any]) -> dict[str, Any]:
    checked, errors = {}, []
    for field in attrs.fields(LossTerm):
        if field.name in values:
            try:
                checked[field.name] = converter.structure(values[field.name], float if field.name == "weight" else int)
                for validate in [field.validator] if field.validator else []:
                    validate(None, field, checked[field.name])
            except Exception as error:
                error.__notes__ = [cattrs.errors.AttributeValidationNote("", field.name, None)]
                errors.append(error)
    if errors:
        raise ClassValidationError("", errors, LossTerm)
    return checked


def _mapping(value: Any, expected: str = "a mapping") -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be {expected}, got {_kind(value)}")
    return value


def _primitive(value: Any, hint: type) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"must be {_article(type_name(hint))}, got {_kind(value)}")
    return value


def _literal(value: Any, hint: Any) -> Any:
    choices = typing.get_args(hint)
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    raise ValueError(f"must be one of {', '.join(map(str, choices))}, got {value!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _is_optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _optional(converter: cattrs.Converter, value: Any, hint: Any) -> Any:
    """`X | None` and small unions such as `str | list[str]`: the first member that takes the value."""
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    if value is None and len(members) < len(typing.get_args(hint)):
        return None
    for member in members[:-1]:
        try:
            return converter.structure(value, member)
        except Exception:  # noqa: S112 (the last member's error is the one reported)
            continue
    return converter.structure(value, members[-1])


def _list(converter: cattrs.Converter, value: Any, hint: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list, got {_kind(value)}")
    member = (typing.get_args(hint) or (Any,))[0]
    items, errors = [], []
    for index, item in enumerate(value):
        try:
            items.append(converter.structure(item, member))
        except Exception as error:
            error.__notes__ = [cattrs.errors.IterableValidationNote("", index, member)]
            errors.append(error)
    if errors:
        raise IterableValidationError("", errors, list)
    return items


def _problems(error: BaseException, path: str) -> typing.Iterator[str]:
    """Flatten cattrs' error tree into lines `path: what is wrong`."""
    if isinstance(error, (ClassValidationError, IterableValidationError)):
        noted, others = error.group_exceptions()
        for inner, note in noted:
            key = str(note.index if hasattr(note, "index") else note.name)
            yield from _problems(inner, f"{path}.{key}" if path else key)
        for inner in others:
            yield from _problems(inner, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        if error.cl is not Experiment and error.cl not in (Phase, Pretrain):
            known = ["name", *known]
        for key in sorted(error.extra_fields, key=str):
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
            yield f"{path + '.' if path else ''}{key}: unknown key, {hint}"
    elif isinstance(error, OptionError):
        yield f"{path + '.' if path else ''}{error.name}: {error.problem}"
    elif isinstance(error, KeyError):
        yield f"{path + '.' if path else ''}{error.args[0]}: is missing"
    elif isinstance(error, (ValueError, PluginError, TypeError)):
        yield f"{path}: {error}" if path else str(error)
    else:
        raise error


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, (Mapping, list)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    return f"{_article(type_name(type(value)))} ({value!r})"


def _article(noun: str) -> str:
    return noun if noun in ("text", "true or false", "null") else f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
