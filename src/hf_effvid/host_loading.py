"""Opens any video classifier of transformers: a folder, a Hub id, or a PEFT adapter around one.

transformers says in many ways, some of them a page long, that a checkpoint cannot be opened. Here each is one typed line that says
what was looked for and what to do.
"""

import contextlib
import json
import os
import re
from pathlib import Path

from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from transformers import AutoModelForVideoClassification, PreTrainedConfig
from transformers.utils import find_adapter_config_file


CONFIG, ADAPTER_CONFIG, ADAPTER_WEIGHTS = "config.json", "adapter_config.json", "adapter_model.safetensors"
PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
# beside an adapter: the classes of its head, which are often not those of the base model
ADAPTER_HEAD = "head.json"
_CONNECT_SECONDS = 10
# how transformers begins to say so
_NO_CLASSIFIER = ("Unrecognized configuration class", "Unrecognized model in", "does not recognize this architecture")
_HUB_OPTIONS = ("revision", "token", "cache_dir")


class CheckpointNotFound(OSError):
    """There is no such checkpoint, or it cannot be seen from here."""


class CheckpointNotUsable(ValueError):
    """There is a checkpoint, but it does not open as a video classifier."""


class RemoteCodeNeeded(CheckpointNotUsable):
    """The checkpoint brings code of its own, which is not run without being asked to."""


def load_video_classifier(name, trust_remote_code=False, **options):
    """A video classifier from a folder or Hub id.

    Args:
        name: folder or Hub id of a checkpoint, or of a PEFT adapter.
        trust_remote_code: run model code that comes with the checkpoint; the installed architectures, those of this package
            included, never need it.
        options: passed to `from_pretrained` (`revision`, `dtype`, ...).

    Returns:
        The model; an adapter comes as a `peft.PeftModel`, whose `name_or_path` is the adapter's own.

    Raises:
        CheckpointNotFound: nothing is there.
        CheckpointNotUsable: it is no video classifier, damaged, or (`RemoteCodeNeeded`) needs its own code.
    """
    name = os.fspath(name)
    options["trust_remote_code"] = trust_remote_code
    with one_line_errors(name, **options):
        adapter = find_adapter_config_file(name, **_hub_options(options))
    if adapter is not None:
        return load_adapter(name, **options)
    with one_line_errors(name, **options):
        return AutoModelForVideoClassification.from_pretrained(name, **options)


def checkpoint_model_type(name, **options):
    """The `model_type` in a checkpoint's configuration; None where there is none, such as in the folder of an adapter.

    Args:
        name: folder or Hub id.
        options: about the Hub (`revision`, `token`, `cache_dir`).

    Raises:
        CheckpointNotFound: nothing is there.
    """
    with one_line_errors(name, **options):
        try:
            return PreTrainedConfig.get_config_dict(os.fspath(name), **options)[0].get("model_type")
        except OSError:
            return None


def load_adapter(name, **options):
    """A PEFT adapter around the base model that its configuration names, with the head and the classes it was trained with.

    Args:
        name: folder or Hub id with `adapter_config.json` and `adapter_model.safetensors`.
        options: passed to `from_pretrained` of the base model; `revision` is the adapter's.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError(f"{name} is an adapter, which needs peft: pip install 'hf_effvid[train]'.") from error

    hub = _hub_options(options)
    config = json.loads(Path(find_adapter_config_file(name, **hub)).read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not base:
        raise CheckpointNotUsable(f"The adapter {name!r} does not name its base model in {ADAPTER_CONFIG}.")
    options = {key: value for key, value in options.items() if key != "revision"}
    if os.path.isdir(name) and not Path(name, ADAPTER_WEIGHTS).is_file():
        raise CheckpointNotUsable(f"The adapter {name!r} holds no {ADAPTER_WEIGHTS}; pickles are not opened.")
    head = Path(name, ADAPTER_HEAD)
    if head.is_file():
        # the base's own head may not fit; the adapter brings another
        options |= {**_read_head(head), "ignore_mismatched_sizes": True}
    with one_line_errors(base, what=f"The base model of the adapter {name!r}", **options):
        model = AutoModelForVideoClassification.from_pretrained(base, **options)
    with one_line_errors(name, **hub):
        model = PeftModel.from_pretrained(model, name, **hub)
    model.name_or_path = name  # PEFT answers with the base's
    return model


def save_head(config, folder):
    """Writes beside an adapter which classes its head has; the configuration that holds them is the base model's."""
    names = [config.id2label[index] for index in sorted(config.id2label)]
    head = {"labels": names, "problem_type": config.problem_type}
    Path(folder, ADAPTER_HEAD).write_text(json.dumps(head, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_head(path):
    head = json.loads(path.read_text(encoding="utf-8"))
    names = head.get("labels") if isinstance(head, dict) else None
    if not isinstance(names, list) or not names:
        raise CheckpointNotUsable(f"{path}: expected the labels of the adapter's head, got {str(head)[:80]}.")
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": head.get("problem_type"),
    }


def is_adapter(model):
    """Whether a model is a PEFT model around one of transformers."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


@contextlib.contextmanager
def one_line_errors(name, what="", **options):
    """Turns what transformers says about a checkpoint that cannot be opened into a typed error of one line.

    Args:
        name: folder or Hub id.
        what: what it is to the caller, where it is not what the caller named.
        options: those of them that are about the Hub count (`revision`, `token`, `cache_dir`).
    """
    name = os.fspath(name)
    prefix = f"{what}: " if what else ""
    # first, because transformers would ask for half a dozen files, each several times over a connection that is down
    missing = why_not_found(name, **_hub_options(options))
    if missing is not None:
        raise CheckpointNotFound(prefix + missing)
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise RemoteCodeNeeded(
                f"{prefix}{name!r} brings model code of its own, which is not run unasked: read it, then pass "
                "trust_remote_code=True (--trust-remote-code)."
            ) from error
        if any(sign in text for sign in _NO_CLASSIFIER):
            raise CheckpointNotUsable(f"{prefix}{name!r} is no video classifier: {_what_it_is(text)}.") from error
        if isinstance(error, SafetensorError) or "mismatch" in text.lower():
            reason = text.strip().splitlines()[0] if text.strip() else type(error).__name__
            raise CheckpointNotUsable(f"{prefix}the weights in {name!r} do not fit its {CONFIG}: {reason}") from error
        raise


def why_not_found(name, revision=None, token=None, cache_dir=None):
    """One line on why there is no such checkpoint; None when there is one.

    Args:
        name: what was given as a folder or Hub id.
        revision, token, cache_dir: as in `from_pretrained`.
    """
    if os.path.exists(name):
        return _what_folder_lacks(Path(name))
    where = f"{name!r} is neither a folder nor"
    hub = {"revision": revision, "cache_dir": cache_dir}
    try:
        if any(isinstance(try_to_load_from_cache(name, file, **hub), str) for file in (CONFIG, ADAPTER_CONFIG)):
            return None
    except HFValidationError:
        return f"{where} a Hub id (org/name)."
    if constants.HF_HUB_OFFLINE:
        return f"{where} in the local cache, and HF_HUB_OFFLINE is set, so that the Hub is not asked."
    try:
        get_session().head(constants.ENDPOINT, timeout=_CONNECT_SECONDS)
        if any(_is_there(name, file, token=token, **hub) for file in (CONFIG, ADAPTER_CONFIG)):
            return None
    except GatedRepoError:
        return f"{name!r} is gated: ask for access at {constants.ENDPOINT}/{name}, then log in (hf auth login)."
    except RepositoryNotFoundError:
        return f"{where} a repository that can be seen on the Hub: check the name, or log in (hf auth login)."
    except RevisionNotFoundError:
        return f"{name!r} has no revision {revision!r} on the Hub."
    except (HTTPError, OSError) as error:
        return f"{where} in the local cache, and the Hub cannot be reached ({type(error).__name__})."
    return f"The repository {name!r} holds no {CONFIG}: it is no checkpoint."


def _is_there(name, file, **hub):
    try:
        return bool(hf_hub_download(name, file, **hub))
    except LocalEntryNotFoundError:  # is an EntryNotFoundError, and means that the connection broke
        raise
    except EntryNotFoundError:
        return False


def _hub_options(options):
    return {name: options[name] for name in _HUB_OPTIONS if options.get(name) is not None}


def _what_folder_lacks(path):
    if not path.is_dir():
        return f"{str(path)!r} is a file: give the folder of a checkpoint, or a Hub id."
    if any((path / file).is_file() for file in (CONFIG, ADAPTER_CONFIG, *PROCESSOR_FILES)):
        return None
    trained = path / "model"
    hint = f" Did you mean {str(trained)!r}?" if (trained / CONFIG).is_file() else ""
    return f"The folder {str(path)!r} holds no {CONFIG}: it is no checkpoint.{hint}"


def _what_it_is(text):
    """What transformers found, out of a sentence that goes on with everything it knows."""
    if _NO_CLASSIFIER[0] in text:
        found = text.split("class '", 1)[-1].split("'", 1)[0].rsplit(".", 1)[-1]
        return f"it holds a {found}"
    named = re.search(r"model type `([^`]{1,80})`", text)
    return f"its {CONFIG} names " + (f"the unknown model_type {named[1]!r}" if named else "no model_type")
