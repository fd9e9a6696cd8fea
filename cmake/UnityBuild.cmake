# Compiles several files of a target as one. What torch's, CLI11's and nlohmann's templates cost is paid once for all of them, not
# once for each file, precompiled headers or not (GCC instantiates what those use again in every file): docs/development.md has
# the times. It follows that names in unnamed namespaces are unique within a target, as they had better be. A changed file takes
# its neighbours along; OFF is better while one is being written, and shows an include that a neighbour has made up for.
option(LIGHTHOUSE_UNITY "compile files of a target several at once: less time from nothing, more after a change" ON)
set(CMAKE_UNITY_BUILD ${LIGHTHOUSE_UNITY})
set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)
