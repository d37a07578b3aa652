"""Puts `configs/` and `tokenizers/` into a wheel, inside the package; pyproject.toml says the rest.

An editable install needs no copy: `calibtrain.config.ready_made` finds them in the checkout.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {"configs": ("*.yaml", "*.json", "*.jsonl"), "tokenizers": ("*.json", "*.model")}


class BuildWithShippedFiles(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder, patterns in SHIPPED.items():
            for file in (path for pattern in patterns for path in Path(folder).rglob(pattern)):
                target = Path(self.build_lib, "calibtrain", "shipped", file)
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))


setup(cmdclass={"build_py": BuildWithShippedFiles})
