"""The frozen base model: loading it, knowing its modules, counting its parameters."""
