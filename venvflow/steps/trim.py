"""placeholder"""


def trim(job): ...
