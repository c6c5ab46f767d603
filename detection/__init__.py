"""The eyes: imagery and frames in, detections out. No database, no HTTP."""
