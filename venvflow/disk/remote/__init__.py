"""A remote: a store in object storage, reached by a child process (``worker``) over a pipe (``channel``)."""
