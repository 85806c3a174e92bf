"""The settings of one trial, fully resolved: plain frozen dataclasses, standard library only.

Each setting is written here and nowhere else: its type, default, meaning, limits and unit, its column and
whether it is part of a trial's identity (`study.settings.setting`). A file holds the sections of one
subject: `data`, `model`, `train` and `run`; `trial` puts them together. To add a setting, add its field to
its section, and use it. Its identity is `IF_CHANGED`, so that the trials from before it keep their ids.

The study file (`study.spec.study`) describes many trials; `study.plan.points` turns each of its points into
one `TrialSettings`. The training loop reads these and nothing else, so it needs no pydantic and no Ray. All
of it may be imported from outside.
"""
