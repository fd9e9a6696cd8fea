"""Several releases of a project as one tree: release 14 of lib/parse.cpp is lib/parse.cpp/14.cpp, in path order after release 13."""

from corpus_archive import fetch_archive, read_files
from corpus_packages import Releases


def read_package(package, downloads):
    """Yields (path, size, read) of the files of the package's archives, which are all fetched first."""
    for archive, file in [(archive, fetch_archive(archive, downloads)) for archive in package.archives]:
        for path, size, read in read_files(file):
            yield release_path(path, archive) if isinstance(package, Releases) else path, size, read


def release_path(path, archive):
    """Where a release of a file stands: 14.cpp, from llvm-toolchain-14, in a folder that has the file's name."""
    _, dot, extension = path.rpartition("/")[2].rpartition(".")
    return f"{path}/{archive.name.rpartition('-')[2]}{dot}{extension if dot else ''}"
