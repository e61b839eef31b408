import lightning_m2pt.torchvision_guard  # noqa: F401  (must run before the first Lightning import of any process)
