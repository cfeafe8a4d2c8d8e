"""A config, read into the encodings of its layers."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from posenc.integrations.held import check_own
from posenc.integrations.transformers.description import model_types as models
from posenc.integrations.transformers.description.config import Keys, check_sizes, read, size, tidy
from posenc.integrations.transformers.description.config_class import (
    built,
    config_class,
    type_of_architecture,
    types_of_architecture,
)
from posenc.integrations.transformers.description.description import Description, LayerGroup
from posenc.integrations.transformers.description.images import READERS as IMAGES
from posenc.integrations.transformers.description.in_words import BESIDE_ROTATION_IN_WORDS, GIVE_PAIRING, INSTEAD
from posenc.integrations.transformers.description.layers import (
    all_layers,
    has_base,
    is_nested,
    is_rotary,
    kinds,
    rotary_parameters,
    types_of,
)
from posenc.integrations.transformers.description.normalise import ALONE, Part, at, normalise
from posenc.integrations.transformers.description.not_rotary import READERS as NOT_ROTARY
from posenc.integrations.transformers.description.own_words import KYUTAI, is_kyutai
from posenc.integrations.transformers.description.params_json import NAME, is_params_json, translated
from posenc.integrations.transformers.description.parts import elsewhere, not_seen
from posenc.integrations.transformers.description.patch_tables import BESIDE_ROTATION
from posenc.integrations.transformers.description.remote_code import READERS as REMOTE
from posenc.integrations.transformers.description.rotary import Pairing, axial, encoding_of
from posenc.integrations.transformers.description.unknown_types import check_unknown
from posenc.integrations.transformers.description.which_key import with_key
from posenc.integrations.transformers.description.without_parameters import reader_of
from posenc.integrations.transformers.rules.read import LENGTH_TAKEN, NEEDS_TRAINED_LENGTH, check_keys

#: Keys of parts that encode: a text or a sound for the model that has them.
_ENCODER = re.compile(r"(?<!de)encoder|audio|speech|sound|whisper", re.IGNORECASE)


def describe(source: Any, *, pairing: Pairing | None = None) -> Description:
    """Read the encoding of each layer of a Hugging Face model, as posenc objects.

    If transformers is installed and knows the model type, its config class fills in a raw config (a dict, a file):
    defaults, old names, patterns of layers. Otherwise ``describe`` reads only the keys; ``Description.reading`` says
    which of the two happened. No remote code runs, and no network is used. posenc itself knows, for each model type,
    what only the modelling code says, such as the pairing. If one part cannot be read, the others are still read.

    Args:
        source: a model or a module around one, its config, a dict, a ``config.json`` or its folder (or Meta's,
            Mistral's, DeepSeek's own).
        pairing: the pairing of a model type that posenc does not know, such as one with its own code.

    Returns:
        A :class:`Description`.

    Raises:
        TypeError: another source.
        ValueError: nothing can be read: keys that are unknown, missing, of a wrong type or contradict each other, with
            what to change; an unknown model type without ``pairing``; a model without an encoding that posenc knows, or
            with one that :func:`posenc.integrations.transformers.replace` put in.

    Example:
        >>> config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
        ...           "max_position_embeddings": 2048, "rope_theta": 10000.0}
        >>> (group,) = describe(config)
        >>> group.layers, group.trained_length, group.encoding.frequencies, group.encoding.pairing
        ((0, 1), 2048, Geometric(base=10000.0), 'half')
    """
    raw, named = _by_architecture(read(source))
    if isinstance(source, nn.Module):
        check_own(source, "describe", "model.posenc_encoding is what acts, and describe(model.config) reads the config")
    _check_engine(raw)
    params = isinstance(raw, Mapping) and is_params_json(raw)
    if params:
        keys, not_read, own = translated(tidy(raw), told=pairing is not None)
        pairing = pairing or own
        read_parts = [Part("", Keys(keys), ALONE, not_read)]
    elif isinstance(raw, Mapping) and is_kyutai(raw):
        read_parts = [Part("", Keys(tidy({**raw, "model_type": KYUTAI})), ALONE)]
    else:
        read_parts = normalise(raw)
    groups: list[LayerGroup] = []
    unread: list[str] = []
    troubles: list[ValueError] = []
    for part in read_parts:
        try:
            check_contradictions(raw, part)
            if part.trouble is not None:
                raise part.trouble
            found = _encoder_alone(part, _groups(part, pairing))
            if found:
                check_sizes(dict(part.keys))  # a copy: to look is not to use
        except ValueError as error:
            written = at(raw, part.name) if isinstance(raw, Mapping) else {}
            trouble = with_key(error, written, dict(part.keys))
            troubles.append(trouble)
            unread.append(f"{part.name or 'the whole'}: {part.model_type}: {str(trouble).removeprefix('describe: ')}")
            continue
        groups += _with_default_base(raw, part, _with_note(raw, part, found))
        prefix = f"{part.name}." if part.name else ""
        if found or not part.name:
            unread += [f"{prefix}{text}" for text in part.not_read]
            unread += [f"{prefix}{key}: not used" for key in part.keys.not_read()]
        elif instead := INSTEAD.get(part.model_type):
            unread.append(f"{part.name}: {part.model_type}: {instead}")
        elif not any(other.name.startswith(f"{part.name}.") for other in read_parts):  # or its parts are what it has
            unread.append(f"{part.name}: {part.model_type}")
    if isinstance(raw, Mapping):
        names = {part.name for part in read_parts}
        unread += [*not_seen(raw, names), *elsewhere(raw, names)]
    whole = read_parts[0]
    for note in filter(None, (_other_code(whole), named)):
        groups = [replace(group, notes=(*group.notes, note)) for group in groups]
    if not groups:
        raise troubles[0] if troubles else _nothing(whole, unread, pairing)
    model_type = raw.get("model_type") if isinstance(raw, Mapping) else whole.model_type
    reading = next((part.reading for part in read_parts if part.by_class), ALONE)
    return Description(NAME if params else str(model_type), tuple(groups), tuple(unread), reading)


def _check_engine(raw: Any) -> None:
    """Refuse a config of TensorRT-LLM, whose keys are its own."""
    inner = raw.get("pretrained_config", raw) if isinstance(raw, Mapping) else None
    if isinstance(inner, Mapping) and {"architecture", "position_embedding_type"} <= inner.keys():
        raise ValueError(
            "describe: this is the config of a checkpoint or an engine of TensorRT-LLM; give the config.json of the "
            "model that it was made from."
        )


def _by_architecture(raw: Any) -> tuple[Any, str | None]:
    """A raw config without a model type, with that of transformers' class of the name in ``architectures``, and a note.

    A config that comes with code of its own is left as it is.
    """
    named = raw.get("architectures") if isinstance(raw, Mapping) else None
    if not isinstance(named, (list, tuple)) or not named or raw.get("model_type") or raw.get("auto_map"):
        return raw, None
    known = type_of_architecture(str(named[0]))
    if known is None:
        return raw, None
    return {**raw, "model_type": known}, f"no model_type in the config: read as {known}, which is that of {named[0]}"


def _nothing(whole: Part, unread: list[str], pairing: Pairing | None) -> ValueError:
    if isinstance(whole.keys.get("_class_name"), str):
        return ValueError(
            f"describe: this is the config of a model of diffusers, {whole.keys['_class_name']!r}; read it with "
            "posenc.integrations.diffusers.describe, or posenc inspect."
        )
    if not whole.keys.get("model_type") and pairing is not None:
        return ValueError(
            "describe: there is no model_type in the config, and no rope_theta, rope_parameters or rope_scaling, "
            "which say a rotation; add the first, or write in these what the model's code does."
        )
    if not whole.keys.get("model_type"):
        return ValueError(_no_type(whole))
    if whole.model_type in INSTEAD:
        return ValueError(
            f"describe: the config of {whole.model_type!r} says nothing of a positional encoding that posenc knows; "
            f"the model's code has {INSTEAD[whole.model_type]}."
        )
    besides = f" Not read: {'; '.join(unread)}." if unread else ""
    return ValueError(
        f"describe: the config of {whole.model_type!r} says nothing of a positional encoding that posenc knows; if "
        f"the model has RoPE, expected rope_parameters, or rope_theta and rope_scaling.{besides}"
    )


def _no_type(part: Part) -> str:
    if isinstance(part.keys.get("architecture"), str):
        return (
            f"describe: this is the config of a model of timm, {part.keys['architecture']!r}; read it with "
            "posenc.integrations.timm.describe, or posenc inspect."
        )
    named = part.keys.get("architectures")
    known = type_of_architecture(str(named[0])) if isinstance(named, (list, tuple)) and named else None
    add = "it" if known is None or not named else f'"model_type": "{known}", which is that of {named[0]}'
    return f"describe: there is no model_type in the config; add {add}, or {GIVE_PAIRING}."


def check_contradictions(raw: Any, part: Part) -> None:
    """Refuse a raw config that says two things, of which its class would take one without a word."""
    if not isinstance(raw, Mapping) or not (part.by_class or part.trouble):
        return
    config: Any = raw
    for key in part.name.split(".") if part.name else ():
        config = config.get(key) if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping):
        return
    flat = {key: config.get(key) for key in ("rope_parameters", "rope_scaling")}
    if not all(value is None or isinstance(value, Mapping) for value in flat.values()):
        return
    parameters = rotary_parameters({**flat, "rope_theta": config.get("rope_theta")})
    if is_nested(parameters):
        return
    for key in ("rope_theta", "partial_rotary_factor"):
        inside, outside = parameters.get(key), config.get(key)
        if inside is not None and outside is not None and inside != outside:
            raise ValueError(
                f"describe: {part.model_type}: {key} is {inside} in the rotary parameters and {outside} beside them, "
                f"expected one {'base' if key == 'rope_theta' else 'share'}; drop one of them."
            )
    if parameters and part.model_type not in models.AXIAL:
        name, _ = check_keys(parameters, where=f"describe: {part.model_type}")
        _check_old_name(part, config, parameters, name)


def _check_old_name(part: Part, config: Mapping[str, Any], parameters: Mapping[str, Any], name: str) -> None:
    """Say where a class does not take ``type``, the old name of ``rope_type``, and so scales nothing."""
    cls = config_class(part.model_type)
    if not part.by_class or cls is None or "rope_type" in parameters or name == "default":
        return
    try:
        made = rotary_parameters(built(cls, {**config, "model_type": part.model_type}))
    except ValueError:
        return
    rules = {str((each or {}).get("rope_type")) for each in (made.values() if is_nested(made) else [made])}
    if rules == {"default"}:
        part.not_read.append(
            f"rope_scaling.type, {name}: {cls.__name__} of {part.reading} reads only rope_type, and scales nothing; "
            "posenc describes what the config means, so write rope_type"
        )


def _other_code(whole: Part) -> str | None:
    """What to say where the class that a config names for its model is none of transformers'.

    Draft models and others borrow a model type for code of their own, which may rotate in another way.
    """
    named = whole.keys.get("architectures")
    if not whole.by_class or not isinstance(named, (list, tuple)) or not named:
        return None
    import transformers

    if whole.model_type in models.SAME_CODE.values():
        return None
    # Not dir(transformers), which takes a third of a second.
    if not {*map(str, named)}.isdisjoint(vars(transformers)["__all__"]):
        types = [types_of_architecture(str(each)) for each in named]
        if not types[0] or any(whole.model_type in each for each in types):
            return _code_beside(whole)
        return (
            f"as {whole.model_type} of {whole.reading} does it, which goes by model_type; architectures says "
            f"{named[0]}, which is of {type_of_architecture(str(named[0])) or sorted(types[0])[0]}: vLLM goes by that"
        )
    return (
        f"as {whole.model_type} of {whole.reading} does it; architectures says {named[0]}, which it does not have: "
        "that code was not compared"
    )


def _code_beside(whole: Part) -> str | None:
    """What to say where code of another name than the model type's lies beside the weights (modeling_llama_yarn)."""
    listed = whole.keys.get("auto_map")
    for name, value in listed.items() if isinstance(listed, Mapping) else ():
        first = value[0] if isinstance(value, (list, tuple)) and value else value
        module = str(first).rpartition("--")[2].partition(".")[0]
        own = whole.model_type.replace("-", "_").startswith(module.removeprefix("modeling_"))
        if str(name).startswith("AutoModel") and first and not own:
            return (
                f"as {whole.model_type} of {whole.reading} does it; auto_map names code that lies beside the weights, "
                f"{module}, which was not compared"
            )
    return None


def _with_note(raw: Any, part: Part, groups: list[LayerGroup]) -> list[LayerGroup]:
    """Say whose values are rotated, whose indexer has other pairs, whose code was not at hand, and where the class took
    the length of the whole for the trained length."""
    if part.model_type in models.VALUES_ROTATE:
        groups = [replace(group, notes=(*group.notes, models.VALUES_ROTATE_NOTE)) for group in groups]
    if part.model_type in models.INDEXER_BY_HALVES:
        groups = [replace(group, notes=(*group.notes, models.INDEXER_BY_HALVES_NOTE)) for group in groups]
    if part.model_type in models.CODE_NOT_SEEN:
        return [replace(group, notes=(*group.notes, models.CODE_NOT_SEEN_NOTE)) for group in groups]
    if part.name or not part.by_class or not isinstance(raw, Mapping):
        return groups
    parameters = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping):  # beside a part that has its own
        return groups
    name = parameters.get("rope_type", parameters.get("type"))
    given = (parameters.get("original_max_position_embeddings"), raw.get("original_max_position_embeddings"))
    if name not in NEEDS_TRAINED_LENGTH or given != (None, None):
        return groups
    return [replace(group, notes=(*group.notes, LENGTH_TAKEN)) for group in groups]


def _with_default_base(raw: Any, part: Part, groups: list[LayerGroup]) -> list[LayerGroup]:
    """Say where a config scales rates by a rule and gives no base, so that it is that of the class.

    So do files that were saved after ``rope_scaling`` of a config object was set: transformers 5 drops the base then.
    """
    if not isinstance(raw, Mapping) or not part.by_class:
        return groups
    written = at(raw, part.name)
    both = [written.get(key) for key in ("rope_parameters", "rope_scaling")]
    if not all(each is None or isinstance(each, Mapping) for each in both) or has_base(written):
        return groups
    parameters = rotary_parameters(written)
    if not parameters or is_nested(parameters) or check_keys(parameters, where="describe")[0] == "default":
        return groups
    noted = []
    for group in groups:
        base = getattr(getattr(group.rotation, "frequencies", None), "base", None)
        note = f"the config has no rope_theta: {base:g} is the default of its class" if base is not None else None
        noted.append(group if note is None else replace(group, notes=(*group.notes, note)))
    return noted


def _groups(part: Part, pairing: Pairing | None) -> list[LayerGroup]:
    model_type, config = part.model_type, part.keys
    for reader in (reader_of(config), REMOTE.get(model_type), NOT_ROTARY.get(model_type), IMAGES.get(model_type)):
        if reader is not None and (found := reader(config)) is not None:
            return [
                LayerGroup(part.name, kind, layers, encoding, length, length, notes)
                for kind, layers, encoding, length, notes in found
            ]
    if model_type in models.PARTS_ALONE:
        return []
    if model_type in models.AXIAL:
        return _axial_groups(part)
    if model_type in models.REMOTE_DEFAULT_BASE and size(config, "num_layers") is not None and not has_base(config):
        config["rope_theta"] = 10_000.0  # the default of their config classes
    if not is_rotary(config):
        return []
    if model_type not in models.KNOWN and pairing is None:
        raise ValueError(_unknown(part))
    groups = [
        LayerGroup(part.name, kind.label, tuple(layers), *encoding_of(config, kind, pairing, by_class=part.by_class))
        for kind, layers in kinds(model_type, config, by_class=part.by_class).items()
    ]
    if model_type not in models.KNOWN:
        check_unknown(config, [group.encoding for group in groups])
    return groups


def _encoder_alone(part: Part, groups: list[LayerGroup]) -> list[LayerGroup]:
    """Of a model of encoder and decoder that is the encoder of another (Whisper of MiniCPM-o, T5 of MusicGen), that."""
    if not _ENCODER.search(part.name.rpartition(".")[2]) or {group.label for group in groups} != {"encoder", "decoder"}:
        return groups
    note = f"the encoder of {part.model_type} alone is part of this model"
    return [replace(group, notes=(*group.notes, note)) for group in groups if group.label == "encoder"]


def _unknown(part: Part) -> str:
    model_type = part.model_type
    if not part.keys.get("model_type"):
        return _no_type(part)
    if config_class(model_type) is not None:
        why = f"{model_type!r} is a model type of transformers whose rotation posenc does not know"
    else:
        why = f"{model_type!r} is a model type that posenc does not know"
    return (
        f"describe: {why}, and a config does not say which channels its code rotates in pairs; "
        f"{GIVE_PAIRING}; posenc diagnose finds out which."
    )


def _axial_groups(part: Part) -> list[LayerGroup]:
    model_type, config = part.model_type, part.keys
    words = (models.COORDINATES.get(model_type), BESIDE_ROTATION_IN_WORDS.get(model_type))
    note = tuple(each for each in words if each)
    parameters = rotary_parameters(config)
    labelled = parameters if is_nested(parameters) else {"": parameters}
    types = types_of(config)
    groups = []
    for label, own in labelled.items():
        layers = tuple(i for i, kind in enumerate(types) if kind == label) if label and types else all_layers(config)
        if own is not None:
            groups.append(LayerGroup(part.name, label, layers, axial(model_type, config, own), notes=note))
    groups.sort(key=lambda group: group.layers[:1])
    table = BESIDE_ROTATION.get(model_type)
    if table is not None and (encoding := table.encoding(config)) is not None:
        groups.append(LayerGroup(part.name, "table", all_layers(config), encoding, notes=table.notes))
    return groups
