import importlib
import pkgutil
import subprocess
import sys

import pytest


PACKAGES = ["", ".compression", ".data", ".evaluation", ".export", ".hub"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_a_submodule_too(package):
    module = importlib.import_module(f"hf_effvid{package}")  # the import of that submodule would take the name's place
    assert not {found.name for found in pkgutil.iter_modules(module.__path__)} & set(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_no_other(package):
    module = importlib.import_module(f"hf_effvid{package}")
    for name in module.__all__:
        assert getattr(module, name) is getattr(module, name)
        assert name in dir(module)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = module.no_such_name


def test_nothing_is_imported_before_it_is_used():
    program = (
        "import sys, hf_effvid.evaluation as evaluation\n"
        "assert 'hf_effvid.evaluation.classification' not in sys.modules\n"
        "evaluation.evaluate_classifier\n"
        "assert 'hf_effvid.evaluation.classification' in sys.modules and 'evaluate_classifier' in vars(evaluation)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
