"""Ray clusters: start or join one, check its machines, send a study to it, write what makes one.

`session.ray_session` and `reach.ClusterError` are for all of `study`; the rest is for `study.cli.submit`. A
new kind of cluster file goes to `manifests`.
"""
