#!/usr/bin/env python3
"""The corpus of the two-stage experiment, from a pinned Debian source package.

  corpus.py build  FOLDER [--package NAME] [--downloads FOLDER]   fetch through apt, choose, hold out (needs numpy)
  corpus.py verify FOLDER                                         compare every byte with the pinned manifest
  corpus.py pack   FOLDER ARCHIVE.tar.xz                          for a machine without network
  corpus.py unpack ARCHIVE.tar.xz FOLDER

FOLDER gets train/, heldout/ and manifest.json. Each command writes all or nothing and does nothing where the output is
there and right. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from corpus_build import build, summary, verify
from corpus_pack import pack, unpack
from corpus_packages import LLVM, PACKAGES, CorpusError


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build")
    builder.add_argument("folder", type=Path)
    builder.add_argument("--package", choices=PACKAGES, default=LLVM.name)
    builder.add_argument("--downloads", type=Path, help="keeps the package's archive; default FOLDER.downloads")
    commands.add_parser("verify").add_argument("folder", type=Path)
    packer = commands.add_parser("pack")
    packer.add_argument("folder", type=Path)
    packer.add_argument("archive", type=Path)
    unpacker = commands.add_parser("unpack")
    unpacker.add_argument("archive", type=Path)
    unpacker.add_argument("folder", type=Path)
    return parser.parse_args(arguments)


def run(options):
    if options.command == "build":
        downloads = options.downloads or options.folder.with_name(options.folder.name + ".downloads")
        build(PACKAGES[options.package], options.folder, downloads)
    elif options.command == "pack":
        pack(options.folder, options.archive)
        print(f"'{options.archive}': {options.archive.stat().st_size / 2**20:.1f} MiB")
    else:
        if options.command == "unpack":
            unpack(options.archive, options.folder)
        else:
            verify(options.folder)
        print(summary(options.folder))


def main(arguments=None):
    try:
        run(parse(arguments))
    except (CorpusError, OSError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
