"""Building a venv with the tool that its lock files ask for: uv, pip, poetry, pdm, pipenv, or commands.

:func:`choose` decides, without running anything, which tool and which commands;
:class:`~venvflow.builders.build.Build` runs them into a staging directory. The commands of a
:class:`Recipe` are templates, the same in every checkout, for they are a part of the venv's key.
Placeholders in their words:

``{venv}``
    the directory to build
``{python}``
    the base interpreter
``{project}``
    the project root
``{lock}``, ``{locks}``
    the first lock file; all of them (the word is repeated for each)
``{uv}``, ``{poetry}``, ``{pdm}``, ``{pipenv}``
    the path of the tool
``{pip}``
    the words that run pip for the new venv

What is installed is what the lock files name, and nothing more: neither builder of requirements files adds
dependencies that no lock file names. Missing ones are warnings.
Relative paths in requirements files (``-e ./pkg``) are relative to the file's directory, for uv and pip.
"""

from venvflow.builders.recipe import Recipe, choose, tool

__all__ = ["Recipe", "choose", "tool"]
