"""Which results of eval may stand beside each other, and what must be said of them."""

MOST_NAMES = 3  # in a line


def beside(arms, task, attention=None):
    """({arm name: [runs]}, [sentences]): runs that are complete with results of their last step; where there are none, those
    with results of the latest step that any has."""
    found = [(arm, run, run.evaluation.results[task, attention])
             for arm in arms for run in arm.runs if (task, attention) in run.evaluation.results]
    if not found:
        return {}, []
    latest = max(result.step for _, _, result in found)
    final = [each for each in found if each[1].complete and each[2].step == each[1].last["step"]]
    drawn = final or [each for each in found if each[2].step == latest]
    runs = {}
    for arm, run, _ in drawn:
        runs.setdefault(arm.name, []).append(run)
    notes = [] if final else [f"After step {latest:,}: there are none of the end of a run"]
    return runs, notes + left_out([each for each in found if each not in drawn]) + lengths(drawn)


def left_out(others):
    names = [f"{run.path.name} (step {result.step:,})" for _, run, result in others]
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return [f"Left out, of other steps: {', '.join(names[:MOST_NAMES])}{more}"]


def lengths(drawn):
    """What to say where sequences are not all of one length."""
    arms_of = {}
    for arm, _, result in drawn:
        if result.seq_len is not None:
            arms_of.setdefault(result.seq_len, {})[arm.name] = True
    if len(arms_of) < 2:
        return []
    parts = [f"{length:,} of {', '.join(names)}" for length, names in sorted(arms_of.items())]
    return [f"Sequence lengths differ: {'; '.join(parts)}"]
