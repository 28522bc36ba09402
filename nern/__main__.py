"""`python -m nern`."""

from nern.cli.main import main

if __name__ == "__main__":
    main()
