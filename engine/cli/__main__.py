"""`python -m engine.cli`: the towpath command where its script is not on the path."""

from engine.cli import main

if __name__ == "__main__":
    main()
