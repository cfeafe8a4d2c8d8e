"""`posenc check`: does a model, loaded by transformers, rotate as its config says?"""

import textwrap

from posenc.integrations.timm.library import is_timm
from posenc.integrations.transformers import Report
from posenc.integrations.transformers import check as check_model
from posenc.lab.checkpoint.find import check_digests, find
from posenc.lab.checkpoint.open import quietly
from posenc.lab.checkpoint.preview import check_code
from posenc.lab.run.errors import RunError
from posenc.lab.run.folder import read_json

KINDS = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForSpeechSeq2Seq", "AutoModel")


def check(source: str, *, trust_remote_code: bool = False) -> Report:
    """Load a model without the network, and compare what it computes with what its config says.

    Args:
        source: a folder in Hugging Face format, a GGUF file, or the name of an installed package that ships one.
        trust_remote_code: whether code from the model's folder may be run.

    Raises:
        RunError: there is no model, its own code is not trusted, or transformers cannot load it.
    """
    place = find(source)
    if place.gguf is None:
        config = read_json(place.folder / "config.json")
        if is_timm(config):
            raise RunError(
                f"{source}: this is a model of timm, whose config says nothing of its encoding that could be checked; "
                "posenc inspect says what its modules compute."
            )
        check_code(place.folder, config, source, trust_remote_code)
    check_digests(place)
    reason = ""
    with quietly():
        import transformers

        for kind in KINDS:
            load = getattr(transformers, kind).from_pretrained
            try:
                model = load(place.folder, dtype="auto", use_safetensors=True, **place.options(trust_remote_code))
            except Exception as error:  # another kind of model, or whatever loading raises
                reason = _first_sentence(str(error)) or type(error).__name__
                continue
            return check_model(model)
    raise RunError(f"{source}: transformers cannot load this model: {reason}")


def _first_sentence(text: str) -> str:
    """The first sentence of a message of another library, which may go on for a page."""
    first = (text.splitlines() or [""])[0].partition(". ")[0]
    return textwrap.shorten(first, 300, placeholder=" ...")
