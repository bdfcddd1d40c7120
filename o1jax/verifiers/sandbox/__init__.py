"""The code sandbox, in which untrusted programs are run and judged. `service` is the way in.

    caller -- service --> bench --> tester (a fork an item: the tests, and the only voice in the verdict)
                            |         | literals over pipes
                            +----> zygote --> candidate (a fork a program: the program, and nothing else)

The bench and the zygote are fresh interpreters, one pair a caller, started at first use. What stands between
a program and the machine is in `zygote`, between a program and its verdict in `program` and `candidate`.
Linux only.
"""
