"""All that turns a source of pictures into batches on the device, and describes them."""
