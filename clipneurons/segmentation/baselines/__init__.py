"""Published ways to localise a class with CLIP, one a file, all with one interface.

``method(clip, images [image, 3, height, width], texts [class, embed])`` returns maps
``[image, class, row, column]`` on the patch grid; larger means more of the class.
"""
