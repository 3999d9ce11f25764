"""Pictures from their source to batches on the device."""
