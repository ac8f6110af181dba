"""The command ``mp3burst``, as ``python -m client``."""

from client.cli import mp3burst

if __name__ == "__main__":
    mp3burst(prog_name="mp3burst")
