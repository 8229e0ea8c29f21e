"""Ground truth drawn in annotation tools: COCO JSON, LabelMe JSON, Label Studio's JSON, CVAT's XML for images.

Each tool has a module that reads its files into shapes for each image; crackseg.data.importing.shapes draws them.
Coordinates are the tools': (0, 0) is the upper left corner of the first pixel, (0.5, 0.5) its middle.
"""
