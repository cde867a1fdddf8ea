"""The version, in the one place where it stands; ``pyproject.toml`` reads this file without importing the package."""

__version__ = "0.15.0.dev0"
