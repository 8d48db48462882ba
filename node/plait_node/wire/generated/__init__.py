"""gRPC stubs generated from proto/ by `make gen`; edits here are overwritten."""
