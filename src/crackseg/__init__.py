"""crackseg: hair-thin cracks in photographs of roads and concrete, pixel by pixel."""

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

__version__ = "0.1.0"

# Modules that scripts of users import, by the names of before the folders; for one release.
_FORMER_NAMES = {
    "crackseg.analysis": "crackseg.inference.detector",
    "crackseg.data.image_io": "crackseg.data.images.files",
    "crackseg.model_loading": "crackseg.registry.loading",
    "crackseg.project_folder": "crackseg.project",
    "crackseg.prediction": "crackseg.inference.files",
}


class _FormerNames:
    """Finder and loader that gives a module under its former name, with a warning that names the new one."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in _FORMER_NAMES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = _FORMER_NAMES[spec.name]
        warnings.warn(f"{spec.name} is {new} now; the former name goes in the next release", FutureWarning, 6)
        module = import_module(new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has set that of the former name


sys.meta_path.append(_FormerNames())
