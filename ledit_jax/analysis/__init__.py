"""What trained models are looked at with: the report on samples at many sizes, and plots."""
