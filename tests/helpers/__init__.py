"""What tests share: models, bundles and naive counterparts."""
