"""``venvflow init``: what the config of a project should say, by what is in it. No other command needs this.

==============  ==========================================================================
``project``     the directories of a project, and what their files say
``lockfiles``   which lock files of a directory fill its venv
``pythons``     which Python it asks for
``discovery``   these together: the venvs that a project could have
``draft``       the files that are written for them, and what to do by hand
==============  ==========================================================================
"""
