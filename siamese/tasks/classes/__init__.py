"""Classification: images on the device, augmentation in batches, training and testing."""
