"""What the selector is compared with: one file each, all with the face of `face.Selector`."""
