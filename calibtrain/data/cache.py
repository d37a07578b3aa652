from calibtrain.data.disk import cache_directory, disk_errors, locked, prepare_once, write_whole  # noqa: F401
