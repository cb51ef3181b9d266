"""placeholder"""


def pack(job): ...
