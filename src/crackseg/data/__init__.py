"""From what people downloaded to training batches."""
