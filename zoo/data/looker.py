"""A worker process that looks at files: a line of paths in, a line of facts out, both JSON, until its input ends.

Python's threads take turns at anything but decoding, so on small pictures they are no quicker than one.
"""

import json
import sys
import warnings

from zoo.data.looking import look


def main() -> None:
    """Answers on standard output; ends with its input, so also when the parent is gone."""
    warnings.simplefilter("ignore")
    most_pixels, most_bytes = int(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        print(json.dumps([look(path, most_pixels, most_bytes) for path in json.loads(line)]), flush=True)


if __name__ == "__main__":
    main()
