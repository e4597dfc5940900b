"""The Python files a checkpoint ships: exactly what its `auto_map` and `custom_pipelines` need, found as transformers finds them."""

import ast
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files


def code_files(folder: Path, documents: dict[str, dict]) -> tuple[set[str], list[str]]:
    """Names of the code files that the JSON documents of a folder refer to, directly or through imports.

    Args:
        folder: the checkpoint folder.
        documents: file name -> parsed JSON, for the files that may hold an `auto_map` or `custom_pipelines`.

    Returns:
        `(names, problems)`: the closure, and what is wrong with it.
    """
    needed, problems = set(), []
    for document_name, document in documents.items():
        if not isinstance(document, dict):
            continue
        for auto_class, references in (document.get("auto_map") or {}).items():
            # tokenizers store a pair (slow, fast); None stands for an absent half
            for reference in references if isinstance(references, (list, tuple)) else [references]:
                if reference is not None:
                    names, found = _closure_of(folder, reference)
                    needed |= names
                    problems += [
                        f"{document_name}: auto_map.{auto_class} = {reference!r}: {problem}" for problem in found
                    ]
    for document_name, document in documents.items():
        pipelines = document.get("custom_pipelines") if isinstance(document, dict) else None
        for task, entry in (pipelines or {}).items():
            reference = entry.get("impl") if isinstance(entry, dict) else None
            names, found = _closure_of(folder, reference)
            if not found and not names <= needed:
                # a model that is saved again copies what its own files import, and nothing else
                found = [
                    f"{', '.join(sorted(names - needed))}: nothing in auto_map imports it, it is lost when saved again"
                ]
            needed |= names
            problems += [f"{document_name}: custom_pipelines.{task} = {reference!r}: {problem}" for problem in found]
    return needed, problems


def _closure_of(folder: Path, reference: str) -> tuple[set[str], list[str]]:
    if "--" in str(reference):
        return set(), ["code of another repository; the folder would not be self-contained"]
    module, _, class_name = str(reference).partition(".")
    if not module.isidentifier() or not class_name.isidentifier():
        return set(), ["expected module.Class"]
    entry = folder / f"{module}.py"
    if not entry.is_file():
        return set(), [f"{entry.name} is missing"]
    try:
        classes = {
            node.name for node in ast.parse(entry.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
        }
        files = [entry, *map(Path, get_relative_import_files(entry))]
    except SyntaxError as error:
        return {entry.name}, [f"{entry.name} is not Python ({error})"]
    except FileNotFoundError as error:
        return {entry.name}, [f"{Path(error.filename).name}, which it imports, is missing"]
    problems = [] if class_name in classes else [f"{entry.name} defines no class {class_name}"]
    problems += [f"{file.name}, which it imports, is missing" for file in files if not file.is_file()]
    return {file.name for file in files}, problems
