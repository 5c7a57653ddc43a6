"""Processes that do not outlive the test that started them, however it ends: the kernel ends them with it."""


def mortal(*words):
    """argv of a program that gets SIGKILL when the thread that starts it is gone. Its pid is that of what is started."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *map(str, words)]
