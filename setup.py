"""Packaging of snclr_jax: `pip install -e ".[dev]"`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
PACKAGE = (HERE / "snclr_jax" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'__version__ = "(.+)"', PACKAGE).group(1)

setup(
    name="snclr_jax",
    version=VERSION,
    description="Soft-neighbor contrastive pretraining of visual encoders in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The versions that the tests were run on.
    python_requires=">=3.11,<3.14",
    # The recipes live beside the package and are importable as snclr_jax.configs.
    packages=[*find_packages(include=["snclr_jax*"]), "snclr_jax.configs"],
    package_dir={"snclr_jax.configs": "configs"},
    package_data={"snclr_jax": ["py.typed", "explore/page.css", "explore/page.js"]},
    entry_points={"console_scripts": ["snclr = snclr_jax.main:run"]},
    install_requires=[
        "absl-py>=2.1",
        "annotated-types>=0.7",
        "array-record>=0.8",
        "etils[epath]>=1.9",
        # jax bounds its cache of programs with it, and does not require it.
        "filelock>=3.13",
        # jax.export serializes with it and does not require it.
        "flatbuffers>=24",
        "flax>=0.12.8,<0.13",
        "grain>=0.2.18,<0.3",
        # tensorflow-datasets 4.9.10 imports it without requiring it.
        "importlib-resources>=6",
        "jax>=0.10,<0.12",
        "matplotlib>=3.10",
        "ml-collections>=1.0",
        "numpy>=2.0",
        # Decodes and crops 1.5 times as fast as Pillow (benchmarks/input.py).
        "opencv-python-headless>=4.10",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "pillow>=11",
        # tensorflow-datasets requires it, too.
        "pyarrow>=15",
        "rich>=13",
        "safetensors>=0.5",
        "scikit-learn>=1.6",
        "scipy>=1.14",
        "tensorboardX>=2.6.5",
        "tensorflow-datasets>=4.9.10",
        "threadpoolctl>=3",
        "tqdm>=4.67",
    ],
    extras_require={
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]", "gcsfs>=2024.6"],
        # Images of iPhones; TIFFs that Pillow cannot read.
        "heic": ["pillow-heif>=1"],
        "tiff": ["tifffile>=2024.1"],
        "onnx": ["onnx>=1.20", "onnxruntime>=1.24"],
        # What `log.to` names.
        "wandb": ["wandb>=0.31"],
        "mlflow": ["mlflow-skinny>=3.1"],
        "trackio": ["trackio>=0.43"],
        "dev": [
            "pyrefly>=1.5,<1.6",
            "gcsfs>=2024.6",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "nbconvert>=7.16",
            "onnx>=1.20",
            "onnxruntime>=1.24",
            "pillow-heif>=1",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "tifffile>=2024.1",
        ],
        # Reads .pth files for `snclr import`; the slow tests of export compare with it.
        "torch": ["torch>=2.6"],
        "docs": [
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.7,<10",
            "mkdocstrings[python]>=1.0,<2",
        ],
    },
)
