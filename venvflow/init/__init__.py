"""``venvflow init``: what the config of a project should say, by what is in it. No other command needs this.

====================  ===================================================================
``project``           the files of a project, and what they say
``trees``             what a directory is for: the project itself, or examples, data of tests …
``requirements``      what requirements files pin and build on, and whether they are locks
``lockfiles``         which venvs the lock files of a directory call for
``tools``             what the tools of lock files leave out
``pythons``           which Python a venv asks for
``virtualenv_cache``  what the config of virtualenv-cache asks for
``discovery``         these together: the venvs that a project could have
``draft``             the files that are written for them, and what to do by hand
``addition``          what is added to a config that is there
====================  ===================================================================
"""
