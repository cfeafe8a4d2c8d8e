"""The census' ways to ask models whose code is not like Llama's."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from posenc import ALiBi, AxialRoPE, Learned, MRoPE, RoPE, Sinusoidal, T5Bias
from posenc.embeddings import LearnedGrid, SinusoidalGrid
from posenc.encoding import Encoding
from posenc.integrations.transformers import LayerGroup
from posenc.scores import DecomposedBias, InklingBias, LeViTBias, SwinBias, SwinV2Bias


class NotComparableError(Exception):
    """There is nothing of the model's own to compare with; the message says why."""


Rotation: TypeAlias = RoPE | AxialRoPE | MRoPE

#: (the model's class or function, the largest error over its budget, the last position)
Compared: TypeAlias = tuple[str, float, int]


def rotation_of(encoding: Encoding) -> Rotation | None:
    """The rotation in an encoding, alone or among others."""
    found = encoding.at("queries_keys")
    return found if isinstance(found, (RoPE, AxialRoPE, MRoPE)) else None


def _rotation(group: LayerGroup) -> Rotation:
    found = rotation_of(group.encoding)
    if found is None:
        raise NotComparableError(f"{type(group.encoding).__name__} is no rotation")
    return found


def tables(module: nn.Module, positions: Tensor, label: str, x: Tensor) -> tuple[Tensor, ...]:
    """What a rotary module makes of positions ``(seq,)`` or ``(seq, coordinates)``: (cos, sin), or a complex table."""
    parameters = inspect.signature(module.forward).parameters
    if positions.ndim == 1:
        ids = positions[None]
    elif "Vision" in type(module).__name__ or "MLCD" in type(module).__name__ or "ViT" in type(module).__name__:
        ids = positions  # (patches, coordinates)
    else:
        ids = positions.T[:, None]  # (coordinates, batch, seq)
    with torch.no_grad():
        if "layer_type" in parameters and label:
            result = module(x, ids, layer_type=label)
        else:
            result = module(x, ids)
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def compare_alibi(config: Any, encoding: ALiBi) -> Compared:
    """Biases up to a constant for each query, which softmax does not see."""
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    length = 4097
    if hasattr(module, "build_alibi_tensor"):
        name = "build_alibi_tensor"
        theirs = module.build_alibi_tensor(torch.ones(1, length), encoding.num_heads, torch.float32)
        theirs = theirs.reshape(encoding.num_heads, length)
        if "falcon" in module.__name__:  # its attention divides them, and the products, afterwards
            theirs = theirs / config.head_dim**0.5
    else:
        name = "build_mpt_alibi_tensor"
        theirs = module.build_mpt_alibi_tensor(encoding.num_heads, length).reshape(encoding.num_heads, length)
    ours = encoding.bias(torch.tensor([length - 1]), torch.arange(length))[:, 0].double()
    difference = (ours - ours[:, :1]) - (theirs.double() - theirs[:, :1].double())
    # Falcon rounds slopes to bfloat16 before the product, as it was trained.
    tolerance = 2**-8 if "falcon" in module.__name__ else 1e-6
    return name, float((difference.abs() / (tolerance * (1 + ours.abs().max()))).max()), length - 1


def compare_t5(config: Any, encoding: T5Bias) -> Compared:
    """The bias that the model's own attention makes of a random table, which its buckets index."""
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    if hasattr(module, "MPNetEncoder"):
        return _mpnet(module.MPNetEncoder(config), encoding)
    name, cls = next((n, c) for n, c in vars(module).items() if hasattr(c, "compute_bias"))
    config.is_decoder = encoding.direction == "causal"
    attention = cls(config, has_relative_attention_bias=True, layer_idx=0)
    length = 1024
    ours = T5Bias.from_dict(encoding.to_dict())
    with torch.no_grad():
        ours.table.copy_(attention.relative_attention_bias.weight)
        theirs = attention.compute_bias(length, length)[0]
        bias = ours.bias(torch.arange(length), torch.arange(length))
    seen = torch.ones(length, length, dtype=torch.bool)
    seen = seen.tril() if config.is_decoder else seen
    return f"{name}.compute_bias", float(((bias - theirs).abs() * seen).max() / 1e-6), length - 1


def _mpnet(encoder: Any, encoding: T5Bias) -> Compared:
    length = 512
    ours = T5Bias.from_dict(encoding.to_dict())
    with torch.no_grad():
        ours.table.copy_(encoder.relative_attention_bias.weight)
        theirs = encoder.compute_position_bias(torch.zeros(1, length, 1))[0]
        error = (ours.bias(torch.arange(length), torch.arange(length)) - theirs).abs().max()
    return "compute_position_bias", float(error / 1e-6), length - 1


def compare_sinusoidal(config: Any, encoding: Sinusoidal) -> Compared:
    """The codes of a table of the model's own."""
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    length = 4097
    if hasattr(module, "get_sinusoid_encoding_table"):
        length = 257  # a number for every place and channel, one by one
        name, theirs = "get_sinusoid_encoding_table", module.get_sinusoid_encoding_table(length, encoding.dim)[0]
    elif hasattr(module, "sinusoids"):
        name, theirs = "sinusoids", module.sinusoids(length, encoding.dim)
    elif hasattr(module, "positional_encoding"):
        name, theirs = "positional_encoding", module.positional_encoding(length, encoding.dim, torch.float32)
    elif hasattr(module, "create_sinusoidal_positions"):
        name, theirs = "create_sinusoidal_positions", module.create_sinusoidal_positions(length, encoding.dim)
    elif found := [cls for name, cls in vars(module).items() if re.search("SinusoidsPosition|CanaryPosition", name)]:
        name, theirs = found[0].__name__, found[0](length, encoding.dim).positional_embedding
    else:
        if hasattr(module, "create_sinusoidal_embeddings"):
            theirs = torch.empty(length, encoding.dim)
            made = module.create_sinusoidal_embeddings(length, encoding.dim, theirs)
            theirs = theirs if made is None else made
            return "create_sinusoidal_embeddings", _codes_error(theirs, encoding), length - 1
        classes = {n: c for n, c in vars(module).items() if "SinusoidalPositionalEmbedding" in n and inspect.isclass(c)}
        if not classes:
            raise NotComparableError(f"{module.__name__} has no sinusoidal class")
        name = next(iter(classes))
        cls: Any = classes[name]
        if hasattr(cls, "get_embedding"):
            asks = "padding_idx" in inspect.signature(cls.get_embedding).parameters
            theirs = cls.get_embedding(length, encoding.dim, *((None,) if asks else ()))
        else:
            if "PegasusX" in name:
                return name, _codes_error(cls(encoding.dim)(torch.zeros(1, length, 1))[0], encoding), length - 1
            built = cls(length, encoding.dim)
            theirs = (built.create_weight if hasattr(built, "create_weight") else built._init_weight)()
    if "musicgen" in module.__name__:  # cosines first
        theirs = torch.cat(theirs.chunk(2, dim=-1)[::-1], dim=-1)
    return name, _codes_error(theirs, encoding), length - 1


def _codes_error(theirs: Tensor, encoding: Sinusoidal) -> float:
    positions = torch.arange(len(theirs))
    error = (theirs.detach().double() - encoding.codes(positions)).abs() / (2e-6 * (1 + positions[:, None]))
    return float(error.max())


def compare_learned(config: Any, encoding: Learned | LearnedGrid) -> Compared:
    """A table of these rows and this width in a model that is built without memory."""
    length, spare = (encoding.length, 2) if isinstance(encoding, Learned) else (len(encoding.table), 0)
    for name, tensor in _tensors(config):
        if re.search("pos|wpe|time_embeddings", name) and tensor.ndim > 1:
            dim = tensor.shape[-1]
            if dim == encoding.dim and 0 <= tensor.numel() // dim - length <= spare:
                return f"{name} (rows and width)", 0.0, length - 1
    raise NotComparableError(f"the model has no table of {length} x {encoding.dim}")


def compare_window(config: Any, encoding: SwinBias | SwinV2Bias) -> Compared:
    """A table of biases by offset, or of offsets themselves, of this window."""
    rows, columns = (2 * side - 1 for side in encoding.window)
    shapes = {(rows * columns + 3 * getattr(encoding, "prefix", 0), encoding.num_heads), (1, rows, columns, 2)}
    for name, tensor in _tensors(config):
        if tuple(tensor.shape) in shapes:
            return f"{name} (shape)", 0.0, encoding.window[0] * encoding.window[1] - 1
    raise NotComparableError(f"the model has no table of offsets in a window of {encoding.window}")


def compare_decomposed(config: Any, encoding: DecomposedBias) -> Compared:
    """What an attention of the model adds to the scores of a few random queries."""
    module, window = _modeling(config), encoding.window
    name, add = _adds_decomposed(config, module)
    ours, places = DecomposedBias.from_dict(encoding.to_dict()), window[0] * window[1]
    few = torch.tensor([0, 1, window[1], places // 2, places - 1])
    query = torch.randn(1, places, encoding.head_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for own in (ours.rows, ours.columns):
            own.normal_(generator=torch.Generator().manual_seed(1))
        theirs = add(query, ours.rows.detach(), ours.columns.detach(), window).reshape(places, places)[few]
        heads = query[:, None, few].expand(-1, encoding.num_heads, -1, -1)
        zeros = torch.zeros(1, encoding.num_heads, len(few), places)
        keys = torch.zeros(1, encoding.num_heads, places, encoding.head_dim)
        bias = ours.on_scores(zeros, few, torch.arange(places), q=heads, k=keys)
    shapes = {tuple(tensor.shape) for each, tensor in _tensors(config) if each.endswith(("rel_pos_h", "rel_pos_w"))}
    if not {tuple(ours.rows.shape), tuple(ours.columns.shape)} <= shapes:
        raise NotComparableError(f"the model has tables of {sorted(shapes)}, and none for {window}")
    return name, float((bias - theirs).abs().max() / 1e-4), places - 1


def _adds_decomposed(config: Any, module: Any) -> tuple[str, Callable[..., Tensor]]:
    """The model's own function of queries and of tables of rows and columns."""
    if hasattr(module, "add_decomposed_relative_positions"):
        function = module.add_decomposed_relative_positions
        zeros: Callable[..., Tensor] = lambda q, h, w, size: function(  # noqa: E731
            q.new_zeros(1, q.shape[1], q.shape[1]), q, h, w, size, size
        )
        return "add_decomposed_relative_positions", zeros
    for key in ("get_decomposed_rel_pos", "add_decomposed_rel_pos"):
        for name, value in vars(module).items():
            if inspect.isclass(value) and hasattr(value, key) and value.__module__ == module.__name__:
                cls: Any = value
                adds = key.startswith("add")
                attention = cls(config) if adds else cls(config, window_size=1)
                return f"{name}.{key}", _called(getattr(attention, key), adds=adds)
    raise NotComparableError(f"{module.__name__} has no function that adds biases of rows and columns")


def _called(method: Callable[..., Tensor], *, adds: bool) -> Callable[..., Tensor]:
    def call(query: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
        before = (query.new_zeros(1, query.shape[1], query.shape[1]),) if adds else ()
        return method(*before, query, rows, columns, size, size)

    return call


def compare_levit(config: Any, encoding: LeViTBias) -> Compared:
    """What an attention of this grid makes of its table."""
    attention = _modeling(config).LevitAttention(8, 4, encoding.num_heads, 1, encoding.window[0])
    ours, places = LeViTBias.from_dict(encoding.to_dict()), torch.arange(encoding.window[0] * encoding.window[1])
    with torch.no_grad():
        attention.attention_biases.normal_(generator=torch.Generator().manual_seed(0))
        ours.table.copy_(attention.attention_biases)
        error = (ours.bias(places, places) - attention.get_attention_biases("cpu")).abs().max()
    if tuple(ours.table.shape) not in {tuple(tensor.shape) for _, tensor in _tensors(config)}:
        raise NotComparableError(f"the model has no table of {tuple(ours.table.shape)}")
    return "LevitAttention", float(error / 1e-6), len(places) - 1


def compare_inkling(config: Any, encoding: InklingBias) -> Compared:
    """The bias of the last few queries of a random text, with parameters of the sizes of the model's layers."""
    module, ours = _modeling(config), InklingBias.from_dict(encoding.to_dict())
    few, length = 8, ours.extent + 100
    places, x = torch.arange(length), torch.randn(1, length, ours.dim, generator=torch.Generator().manual_seed(0))
    q, k = x.new_zeros(1, ours.num_heads, few, 1), x.new_zeros(1, ours.num_heads, length, 1)
    with torch.no_grad():
        state = ours.carry(x)
        bias = ours.on_scores(q.expand(-1, -1, -1, length), places[-few:], places, q=q, k=k, state=state)
        if ours.scale is None:
            name, own = "InklingRelativeLogits", {"r_proj.weight": ours.mix.weight}
            logits = module.InklingRelativeLogits(ours.rank, ours.extent)
            logits.load_state_dict({"proj": ours.profiles})
            theirs = logits(state[..., -few:].movedim(-1, 1), places[-few:], places)
        else:
            name, cls = next((n, c) for n, c in vars(module).items() if n.endswith("RelativePositionBias"))
            own = {"linear.weight": ours.mix.weight, "norm.scale": ours.scale}
            layer = cls(config, ours.num_heads, ours.extent, log_scaling=False)
            layer.load_state_dict(own | {"proj": ours.profiles})
            theirs = layer(x[:, -few:], places[-few:, None] - places, places[None, -few:])
    theirs_have = [(key, tensor.shape) for key, tensor in _tensors(config)]
    for end, parameter in (own | {"proj": ours.profiles}).items():
        if not any(key.endswith(end) and shape == parameter.shape for key, shape in theirs_have):
            raise NotComparableError(f"the model has no {end} of {tuple(parameter.shape)}")
    return name, float((bias - theirs).abs().max() / 1e-6), length - 1


def compare_sinusoidal_grid(config: Any, encoding: SinusoidalGrid) -> Compared:
    """The table that the model fills in for its patches, behind the class token's row."""
    module = _modeling(config)
    name = next(name for name, cls in vars(module).items() if hasattr(cls, "initialize_weights") and "Embed" in name)
    embeddings = vars(module)[name](config)
    embeddings.initialize_weights()
    side = config.image_size // config.patch_size
    theirs = embeddings.position_embeddings.detach()[0, -side * side :].double()
    error = (theirs - encoding.codes(_grid(side, side)[None])[0]).abs().max() / (2e-6 * side)
    return name, float(error), side * side - 1


def _tensors(config: Any) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of the models of a config, built without memory."""
    for cls in _models(config):
        try:
            with torch.device("meta"):
                model = cls(config)
        except (TypeError, AttributeError, KeyError, ImportError):  # written for another config, or in need of more
            continue
        yield from model.named_parameters()
        yield from model.named_buffers()


def _models(config: Any) -> Iterator[Any]:
    """The classes that are built from a config: its model, those that name it, those that take it under its name."""
    from transformers import MODEL_MAPPING

    module = _modeling(config)
    if type(config) in MODEL_MAPPING:
        yield MODEL_MAPPING[type(config)]
    classes = [(n, c) for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, nn.Module)]
    named = [c for n, c in classes if getattr(c, "config_class", None) is type(config) and "PreTrained" not in n]
    yield from (c for c in named if c.__name__.endswith(("Model", "VisionTransformer")))
    yield from (c for c in named if not c.__name__.endswith(("Model", "VisionTransformer")))
    yield from (c for n, c in classes if n.endswith(("Embeddings", "VisionTransformer")))


def _matrices_error(theirs: Tensor, rotation: Rotation, positions: Tensor) -> float:
    """The largest error over its budget of matrices (positions, d, d) from basis vectors in front."""
    angle, _ = rotation.phases(positions)
    budget = 2e-6 * (1 + angle.abs().amax(dim=-1))[:, None, None]
    width = theirs.shape[-1]
    return float(((theirs - rotation.matrix(positions)[:, :width, :width]).abs() / budget).max())


def _basis(width: int, length: int) -> Tensor:
    """(basis vector, 1 head, length, width)"""
    return torch.eye(width)[:, None, None, :].expand(width, 1, length, width).contiguous()


def _as_matrices(images: Tensor) -> Tensor:
    return images[:, 0].double().permute(1, 2, 0)


def _modeling(config: Any) -> Any:
    return importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))


def _gptj(config: Any, group: LayerGroup) -> Compared:
    module, rotation = _modeling(config), _rotation(group)
    width, length = rotation.rotary_dim, 4097
    positions = torch.tensor([0, 1, 2, 17, 255, 2047, 4096])
    sin, cos = module.create_sinusoidal_positions(length, width)[positions].chunk(2, dim=-1)
    given = _basis(width, len(positions)).transpose(1, 2)
    images = module.apply_rotary_pos_emb(given, sin[None], cos[None]).transpose(1, 2)
    return "create_sinusoidal_positions", _matrices_error(_as_matrices(images), rotation, positions), length - 1


def _roformer(config: Any, group: LayerGroup) -> Compared:
    module, rotation, length = _modeling(config), _rotation(group), 4097
    width = rotation.head_dim
    table = module.RoFormerSinusoidalPositionalEmbedding(length, width).create_weight()
    positions = torch.tensor([0, 1, 2, 17, 255, 2047, 4096])
    given = _basis(width, len(positions))
    apply = module.RoFormerSelfAttention.apply_rotary_position_embeddings
    images = torch.cat([apply(table[positions][None, None], row[None], row[None])[0] for row in given])
    name = "RoFormerSinusoidalPositionalEmbedding"
    return name, _matrices_error(_as_matrices(images), rotation, positions), length - 1


def _clvp(config: Any, group: LayerGroup) -> Compared:
    module, rotation, length = _modeling(config), _rotation(group), 4097
    angle = module.ClvpRotaryPositionalEmbedding(config)(torch.zeros(1, length, 1))[0]
    positions = torch.tensor([0, 1, 2, 17, 255, 2047, 4096])
    given = _basis(rotation.rotary_dim, len(positions))
    images = module.apply_rotary_pos_emb(given, given, given, angle.cos(), angle.sin(), positions[None])[0]
    name = "ClvpRotaryPositionalEmbedding"
    return name, _matrices_error(_as_matrices(images), rotation, positions), length - 1


def _conformer(config: Any, group: LayerGroup) -> Compared:
    module, length = _modeling(config), 4097
    name = next(n for n in vars(module) if n.endswith("RotaryPositionalEmbedding"))
    tables = getattr(module, name)(config)(torch.zeros(1, length, 1))
    attention = next(c for n, c in vars(module).items() if n.endswith(("ConformerSelfAttention", "BertSelfAttention")))
    attention = attention(config)
    positions = torch.tensor([0, 1, 2, 17, 255, 2047, 4096])
    width = attention.head_size
    given = _basis(width, len(positions))[:, 0].repeat(1, 1, attention.num_heads)
    with torch.no_grad():
        images = attention._apply_rotary_embedding(given, tables[:, positions])[..., :width]
    return name, _matrices_error(_as_matrices(images[:, None]), _rotation(group), positions), length - 1


def _grid(height: int, width: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((rows, columns), dim=-1).flatten(0, 1)


def _patch_centres(config: Any, group: LayerGroup) -> Compared:
    """DINOv3 and its like: a module that is given an image."""
    module = _modeling(config)
    cls = next(c for n, c in vars(module).items() if n.endswith(("RopePositionEmbedding", "RotaryEmbedding")))
    height, width = 6, 9
    patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
    built = cls(config).eval()
    cos, sin = built(torch.zeros(1, 3, height * patch, width * patch))
    size = torch.tensor([height, width], dtype=torch.float64)
    positions = 2 * torch.pi * (2 * (_grid(height, width).double() + 0.5) / size - 1)
    given = _basis(cos.shape[-1], height * width)
    images = module.apply_rotary_pos_emb(given, given, cos, sin)[0]
    return cls.__name__, _matrices_error(_as_matrices(images), _rotation(group), positions), height * width - 1


def _llama4_vision(config: Any, group: LayerGroup) -> Compared:
    module = _modeling(config)
    side = config.image_size // config.patch_size
    table = module.Llama4VisionRotaryEmbedding(config)(torch.zeros(1))
    positions = torch.cat((_grid(side, side) + 1, torch.zeros(1, 2, dtype=torch.long)))
    given = _basis(_rotation(group).head_dim, len(positions)).transpose(1, 2)
    images = module.vision_apply_rotary_emb(given, given, table)[0].transpose(1, 2)
    name = "Llama4VisionRotaryEmbedding"
    return name, _matrices_error(_as_matrices(images), _rotation(group), positions), side * side


def _gemma4_vision(config: Any, group: LayerGroup) -> Compared:
    module = _modeling(config)
    positions = torch.cat((_grid(5, 7), torch.tensor([[1000, 3], [7, 4095]])))
    cos, sin = module.Gemma4VisionRotaryEmbedding(config)(torch.zeros(1), positions[None])
    given = _basis(_rotation(group).head_dim, len(positions)).transpose(1, 2)
    images = module.apply_multidimensional_rope(given, cos, sin, positions[None]).transpose(1, 2)
    name = "Gemma4VisionRotaryEmbedding"
    return name, _matrices_error(_as_matrices(images), _rotation(group), positions), 4095


def _efficientloftr(config: Any, group: LayerGroup) -> Compared:
    module = _modeling(config)
    size, stride, height, width = config.q_aggregation_kernel_size, config.q_aggregation_stride, 6, 9
    image = torch.zeros(1, 1, (height - 1) * stride + size, (width - 1) * stride + size)
    cos, sin = module.EfficientLoFTRRotaryEmbedding(config)(image)
    positions = _grid(height, width) + 1
    given = _basis(cos.shape[-1], height * width)[:, 0]
    flat = cos.flatten(0, 2)[None], sin.flatten(0, 2)[None]
    images = module.apply_rotary_pos_emb(given, given, *flat, unsqueeze_dim=0)[0]
    images = images.reshape(len(given), 1, height * width, -1)
    name = "EfficientLoFTRRotaryEmbedding"
    return name, _matrices_error(_as_matrices(images), _rotation(group), positions), height * width


def _esmfold2(config: Any, group: LayerGroup) -> Compared:
    module = _modeling(config)
    coordinates = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)) * 20
    identity = torch.arange(12) * 37
    cos, sin = module.EsmFold2RotaryEmbedding(config)(coordinates[None], identity[None], torch.float32)
    positions = torch.cat((coordinates.double(), identity[:, None].double()), dim=-1)
    given = _basis(cos.shape[-1], 12)
    images = module.apply_rotary_pos_emb(given, given, cos, sin)[0]
    return "EsmFold2RotaryEmbedding", _matrices_error(_as_matrices(images), _rotation(group), positions), 407


def _vjepa2(config: Any, group: LayerGroup) -> Compared:
    module = _modeling(config)
    attention = module.VJEPA2RopeAttention(config, config.hidden_size, config.num_attention_heads)
    positions = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 5, 7]])
    given = _basis(attention.attention_head_size, len(positions))
    images = attention.apply_rotary_embeddings(given, [column.float() for column in positions.T])
    return "VJEPA2RopeAttention", _matrices_error(_as_matrices(images), _rotation(group), positions), 7


def temperature_error(config: Any, encoding: Any) -> float | None:
    """The error of a temperature by position over its budget; None if the model has no function to compare with."""
    module, positions = _modeling(config), torch.tensor([0, 1, 2047, 2048, 8190, 8191, 8192, 16_383, 131_071])
    ours = encoding.temperature(positions)[0].flatten().double()
    if hasattr(module, "get_llama_4_attn_scale"):
        parameters = config.rope_parameters
        length = parameters["original_max_position_embeddings"]
        theirs = module.get_llama_4_attn_scale(positions[None], parameters["llama_4_scaling_beta"], length)
    elif hasattr(module, "compute_attention_scaling"):
        theirs = module.compute_attention_scaling(positions[None])
    elif scales := [cls for name, cls in vars(module).items() if name.endswith("LogScale")]:  # Inkling 2
        theirs = scales[0](config)(torch.ones(1, len(positions), 1, 1), positions[None])
    else:
        return None
    return float(((theirs.flatten().double() - ours).abs() / 1e-6).max())


COMPARISONS: dict[str, Callable[[Any, LayerGroup], Compared]] = {
    "gptj": _gptj,
    "codegen": _gptj,
    "roformer": _roformer,
    "clvp_encoder": _clvp,
    "dinov3_vit": _patch_centres,
    "eomt_dinov3": _patch_centres,
    "sapiens2": _patch_centres,
    "llama4_vision_model": _llama4_vision,
    "gemma4_vision": _gemma4_vision,
    "efficientloftr": _efficientloftr,
    "esmfold2": _esmfold2,
    "vjepa2": _vjepa2,
    "wav2vec2-conformer": _conformer,
    "wav2vec2-bert": _conformer,
    "seamless_m4t": _conformer,
}
