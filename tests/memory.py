"""How much memory something takes."""

import subprocess
import sys
from pathlib import Path


class Memory:
    """Peak growth of this process, which is also that of servers in it, in MB."""

    def __init__(self):
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
        self.start = self.read("VmRSS")

    def read(self, name):
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith(name)) / 1024

    def growth(self):
        return self.read("VmHWM") - self.start


def growth_alone(setting, measured):
    """Peak growth in MB of a program of its own: training changes how this one frees memory."""
    code = f"from memory import Memory\n{setting}\nm = Memory()\n{measured}\nprint(m.growth())"
    run = [sys.executable, "-c", code]
    here = Path(__file__).parent
    return float(subprocess.run(run, cwd=here, capture_output=True, check=True).stdout)
