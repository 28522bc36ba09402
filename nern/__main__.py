"""`python -m nern`."""

from nern.cli import main

if __name__ == "__main__":
    main()
