-- image_id, pixel_0_0 to pixel_7_7 (row, column), digit.
SELECT * FROM digits
