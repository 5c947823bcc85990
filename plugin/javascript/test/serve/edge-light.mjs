import { lab } from '../lab.mjs';

export default lab;
