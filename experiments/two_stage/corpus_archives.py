"""Several archives as one tree. Release 14 of lib/parse.cpp is lib/parse.cpp/14.cpp, in path order after release 13; of a collection
doc/guide.rst is prose/PACKAGE/doc/guide.rst."""

from corpus_archive import fetch_archive, read_files
from corpus_packages import Collection, Releases
from corpus_select import kind_of


def read_package(package, downloads):
    """Yields (path, size, read) of the files of the package's archives, which are all fetched first."""
    for archive, file in [(archive, fetch_archive(archive, downloads)) for archive in package.archives]:
        for path, size, read in read_files(file):
            if isinstance(package, Releases):
                path = release_path(path, archive)
            elif isinstance(package, Collection):
                path = f"{'prose' if kind_of(package, path) == 'documentation' else 'code'}/{archive.name}/{path}"
            yield path, size, read


def release_path(path, archive):
    """Where a release of a file stands: 14.cpp, from llvm-toolchain-14, in a folder that has the file's name."""
    _, dot, extension = path.rpartition("/")[2].rpartition(".")
    return f"{path}/{archive.name.rpartition('-')[2]}{dot}{extension if dot else ''}"
